//! What the HTTP layer costs a real axum server: requests a second over kept-alive connections beside those of the bare
//! service, in turns in one run, and nanoseconds a request without the network. Prints a table.
//!
//! `cargo bench --features axum --bench http_load`; `-- --quick` for a short one.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use http::{HeaderName, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tollgate::http::{ClientIp, Header, PeerAddr};
use tollgate::{LimitLayer, LimiterExt, Quota, TokenBucket};
use tower::{Layer, Service, service_fn};

const CONNECTIONS: usize = 16;
const KEYS: usize = 100_000;
const TENANT: HeaderName = HeaderName::from_static("x-tenant");
/// Never reached: admitted requests are what is measured.
const PLENTY: Quota = Quota::per_second(1_000_000_000);

async fn serve(app: Router) -> Result<SocketAddr, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
    });
    Ok(address)
}

fn app() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

/// What it costs to send the fields, whoever writes them.
fn app_with_fields() -> Router {
    let fields =
        [("ratelimit-policy", r#""load";q=1000000000;w=1"#), ("ratelimit", r#""load";r=999999999;t=1"#)];
    Router::new().route("/", get(async move || (fields, "hello")))
}

fn layered(keys: Keys, fields: bool) -> Result<Router, Box<dyn Error>> {
    let limit = TokenBucket::builder(PLENTY).name("load").build()?;
    Ok(match keys {
        Keys::One => {
            let layer = LimitLayer::http(limit.keyed().by(ClientIp::peer()));
            app().layer(if fields { layer } else { layer.without_fields() })
        }
        Keys::Many => {
            let limit = TokenBucket::builder(PLENTY).name("load").keyed().max_keys(4 * KEYS).build()?;
            app().layer(LimitLayer::http(limit.by(Header::named(TENANT))))
        }
    })
}

#[derive(Clone, Copy)]
enum Keys {
    One,
    Many,
}

/// Requests answered within `span`, one at a time on each connection.
async fn load(server: SocketAddr, keys: Keys, span: Duration) -> Result<u64, Box<dyn Error>> {
    let until = Instant::now() + span;
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS {
        tasks.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            let (mut answered, mut buffer) = (0u64, [0u8; 2048]);
            while Instant::now() < until {
                let tenant = match keys {
                    Keys::One => 0,
                    // A step coprime to the number of keys: all come, in no order.
                    Keys::Many => (connection * 6_151 + answered as usize * 7_919) % KEYS,
                };
                let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx-tenant: {tenant:08}\r\n\r\n");
                stream.write_all(request.as_bytes()).await?;
                let mut length = 0;
                while !buffer[..length].ends_with(b"\r\n\r\nhello") {
                    let read = stream.read(&mut buffer[length..]).await?;
                    if read == 0 {
                        return Err(std::io::Error::other("the server hung up"));
                    }
                    length += read;
                }
                if !buffer.starts_with(b"HTTP/1.1 200") {
                    return Err(std::io::Error::other("a request was refused"));
                }
                answered += 1;
            }
            Ok(answered)
        }));
    }
    let mut all = 0;
    for task in tasks {
        all += task.await??;
    }
    Ok(all)
}

/// Nanoseconds for one call of a service that does nothing.
fn call_ns<S>(mut service: S, calls: u32) -> f64
where
    S: Service<Request<()>, Error = Infallible>,
{
    let peer = PeerAddr::from(SocketAddr::from(([203, 0, 113, 7], 1)));
    let started = Instant::now();
    for _ in 0..calls {
        let mut request = Request::new(());
        request.extensions_mut().insert(peer);
        let response = futures::executor::block_on(service.call(request));
        drop(std::hint::black_box(response));
    }
    started.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, span) = if quick { (3, 200) } else { (21, 500) };
    let span = Duration::from_millis(span);
    let rows = [
        ("bare service", Keys::One, serve(app()).await?),
        ("bare service, again", Keys::One, serve(app()).await?),
        ("bare service with constant fields", Keys::One, serve(app_with_fields()).await?),
        ("one client, no fields", Keys::One, serve(layered(Keys::One, false)?).await?),
        ("one client", Keys::One, serve(layered(Keys::One, true)?).await?),
        ("100,000 tenants", Keys::Many, serve(layered(Keys::Many, true)?).await?),
    ];
    for (_, keys, server) in rows {
        load(server, keys, span).await?;
    }
    let mut throughput = vec![Vec::new(); rows.len()];
    for _ in 0..rounds {
        for (row, (_, keys, server)) in rows.iter().enumerate() {
            throughput[row].push(load(*server, *keys, span).await? as f64);
        }
    }
    println!("| axum over {CONNECTIONS} connections | requests, of the bare service's |");
    println!("|---|---|");
    for (row, (name, ..)) in rows.iter().enumerate() {
        let pairs = throughput[row].iter().zip(&throughput[0]);
        println!("| {name} | {:.3} |", median(pairs.map(|(one, bare)| one / bare).collect()));
    }

    let bare =
        service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(String::from("hello"))) });
    let limit = TokenBucket::builder(PLENTY).name("load").build()?;
    let full = LimitLayer::http(limit.keyed().by(ClientIp::peer()));
    let plain = full.clone().without_fields();
    let calls = if quick { 20_000 } else { 200_000 };
    let times = |measure: &dyn Fn() -> f64| median((0..rounds).map(|_| measure()).collect());
    let floor = times(&|| call_ns(bare, calls));
    println!("\n| a call without the network | ns, less the bare service's {floor:.0} |");
    println!("|---|---|");
    println!("| layer | {:.0} |", times(&|| call_ns(full.layer(bare), calls)) - floor);
    println!("| layer, no fields | {:.0} |", times(&|| call_ns(plain.layer(bare), calls)) - floor);
    let spent = TokenBucket::builder(Quota::per_day(1)).name("load").build()?;
    let full = LimitLayer::http(spent.keyed().by(ClientIp::peer()));
    let plain = full.clone().without_fields();
    println!("| layer, refused | {:.0} |", times(&|| call_ns(full.layer(bare), calls)) - floor);
    println!("| layer, refused, no fields | {:.0} |", times(&|| call_ns(plain.layer(bare), calls)) - floor);
    Ok(())
}
