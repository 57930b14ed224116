//! A pool of connections on an embedded SQLite: a limit in front of the pool, a time for each query, pages by key.
//!
//! `cargo run --example database` has eight readers page through a table over four connections, then fills all four
//! with queries that would run for hours, and are cut off. Exits with an error if a row was missed, or if a query ran
//! to its end.

use std::error::Error;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use sqlx::SqliteConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tollgate::{Ask, Concurrency, Queue};

const CONNECTIONS: u32 = 4;
const READERS: usize = 8;
const ROWS: i64 = 1000;
const PAGE: i64 = 100;
const SLOW: &str = "SELECT count(*) FROM book a, book b, book c, book d WHERE a.title < b.title";

type BoxError = Box<dyn Error + Send + Sync>;

struct Database {
    pool: SqlitePool,
    limit: Concurrency,
}

impl Database {
    async fn open(options: SqliteConnectOptions) -> Result<Self, BoxError> {
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).connect_with(options).await?;
        // The pool bounds its connections. The limit also bounds the line for them, and lets each caller say how long
        // it will wait.
        let limit = Concurrency::builder(CONNECTIONS.into()).name("database").queue(Queue::new().limit(100));
        Ok(Self { pool, limit: limit.build()? })
    }

    /// Runs a query that may take so long, once `ask` is met.
    async fn run<T>(
        &self,
        ask: impl Into<Ask>,
        time: Duration,
        query: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>,
    ) -> Result<T, BoxError> {
        let _permit = self.limit.acquire(ask).await?;
        let mut connection = self.pool.acquire().await?;
        // A timeout around the future would end our wait but not the query: its connection would be busy, its permit
        // free. So SQLite itself looks at the clock, every thousand steps.
        let deadline = Instant::now() + time;
        connection.lock_handle().await?.set_progress_handler(1000, move || Instant::now() < deadline);
        Ok(query(&mut connection).await?)
    }

    /// The keys of all books. Each page begins behind the last key of the one before: it is found as fast as the
    /// first, and rows that come or go meanwhile shift nothing, as they would with `OFFSET`.
    async fn books(&self) -> Result<Vec<i64>, BoxError> {
        let (mut keys, mut last) = (Vec::new(), 0);
        loop {
            let page: Vec<(i64, String)> = self
                .run(1, Duration::from_secs(5), async |connection| {
                    sqlx::query_as("SELECT id, title FROM book WHERE id > ? ORDER BY id LIMIT ?")
                        .bind(last)
                        .bind(PAGE)
                        .fetch_all(connection)
                        .await
                })
                .await?;
            let Some((key, _)) = page.last() else { return Ok(keys) };
            last = *key;
            keys.extend(page.iter().map(|(key, _)| *key));
        }
    }

    /// A query over all combinations of four books.
    async fn status(&self, ask: impl Into<Ask>) -> Result<i64, BoxError> {
        let query =
            async |connection: &mut SqliteConnection| sqlx::query_scalar(SLOW).fetch_one(connection).await;
        self.run(ask, Duration::from_millis(200), query).await
    }
}

async fn show(database: &Database) -> Result<(), BoxError> {
    let start = Instant::now();
    let read = try_join_all((0..READERS).map(|_| database.books())).await?;
    println!("{READERS} readers saw {ROWS} rows each, {PAGE} at a time, in {:.2?}", start.elapsed());
    assert!(read.iter().all(|keys| keys.iter().copied().eq(1..=ROWS)), "a row was missed or read twice");

    let start = Instant::now();
    let slow = join_all((0..CONNECTIONS).map(|_| database.status(1)));
    let hurried = database.status(Ask::ONE.within(Duration::ZERO));
    let (slow, hurried) = tokio::join!(slow, hurried);
    let took = start.elapsed();
    for answer in slow {
        let error = answer.err().ok_or("a query of hours has answered")?.downcast::<sqlx::Error>()?;
        let code = error.as_database_error().and_then(|error| error.code());
        assert_eq!(code.as_deref(), Some("9"), "SQLITE_INTERRUPT");
    }
    println!("{CONNECTIONS} queries that run for hours were cut off after {took:.2?}");
    let refused = hurried.err().ok_or("there was a connection for a fifth query")?;
    println!("one that would not wait for them: {refused}");

    assert_eq!(database.limit.snapshot().remaining, u64::from(CONNECTIONS), "every permit is back");
    assert_eq!(database.books().await?.len() as i64, ROWS);
    println!("and the database answers again");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let file = std::env::temp_dir().join(format!("tollgate-{}.sqlite", std::process::id()));
    let database =
        Database::open(SqliteConnectOptions::new().filename(&file).create_if_missing(true)).await?;
    sqlx::query("CREATE TABLE book (id INTEGER PRIMARY KEY, title TEXT NOT NULL)")
        .execute(&database.pool)
        .await?;
    let fill = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
        INSERT INTO book (title) SELECT 'Volume ' || n FROM number";
    sqlx::query(fill).bind(ROWS).execute(&database.pool).await?;
    let shown = show(&database).await;
    database.pool.close().await;
    std::fs::remove_file(file)?;
    shown
}
