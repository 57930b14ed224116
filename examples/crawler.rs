//! A crawler with at most 20 requests in flight: follows links from page to page, each page once.
//!
//! `cargo run --example crawler` crawls a real local site of 400 pages. Exits with an error if a page was missed or
//! asked for twice, or if the site ever had more than 20 requests at once.

use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use html5gum::{Token, Tokenizer};
use reqwest::{Client, Url};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tollgate::{Concurrency, Slots};

const IN_FLIGHT: u64 = 20;

type BoxError = Box<dyn Error + Send + Sync>;

/// What was found from the start on, on its own host.
#[derive(Default)]
struct Crawl {
    pages: usize,
    links: usize,
    dead: Vec<BoxError>,
}

async fn crawl(start: Url) -> Result<Crawl, BoxError> {
    let (client, limit) = (Client::new(), Concurrency::new(IN_FLIGHT));
    let mut seen = HashSet::from([start.clone()]);
    let (mut ahead, mut visits) = (VecDeque::from([start.clone()]), JoinSet::new());
    let mut crawl = Crawl::default();
    loop {
        if let Some(url) = ahead.pop_front() {
            // The permit comes before the task: what waits is an address, not a task of its own.
            let permit = limit.acquire(1).await?;
            visits.spawn(visit(client.clone(), url, permit));
        } else if let Some(visited) = visits.join_next().await {
            match visited? {
                Ok(links) => {
                    crawl.pages += 1;
                    crawl.links += links.len();
                    let own = links.into_iter().filter(|link| link.origin() == start.origin());
                    ahead.extend(own.filter(|link| seen.insert(link.clone())));
                }
                Err(error) => crawl.dead.push(error),
            }
        } else {
            return Ok(crawl);
        }
    }
}

/// The links of one page. The permit is held until the whole page is there, not only its head.
async fn visit(client: Client, url: Url, _permit: Slots) -> Result<Vec<Url>, BoxError> {
    let page = client.get(url.clone()).send().await?.error_for_status()?.text().await?;
    Ok(links(&url, &page))
}

/// Where the anchors of a page lead. Two links that differ in their fragment lead to one page.
fn links(page: &Url, html: &str) -> Vec<Url> {
    let mut links = Vec::new();
    for Ok(token) in Tokenizer::new(html) {
        let Token::StartTag(tag) = token else { continue };
        let href = tag.attributes.get(b"href".as_slice()).filter(|_| tag.name == b"a");
        if let Some(Ok(mut link)) = href.map(|href| page.join(&String::from_utf8_lossy(href))) {
            link.set_fragment(None);
            links.push(link);
        }
    }
    links
}

const PAGES: u64 = 400;

/// A site, and what it saw of its visitor.
struct Site {
    visits: Vec<AtomicU64>,
    now: AtomicU64,
    most: AtomicU64,
}

impl Site {
    async fn page(
        State(site): State<Arc<Self>>,
        Path(number): Path<u64>,
    ) -> Result<Html<String>, StatusCode> {
        let visits = site.visits.get(number as usize).ok_or(StatusCode::NOT_FOUND)?;
        visits.fetch_add(1, Ordering::Relaxed);
        site.most.fetch_max(site.now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(10)).await;
        site.now.fetch_sub(1, Ordering::Relaxed);
        Ok(Html(Self::html(number)))
    }

    /// Links in every form that the web has: forward, back, dead, and away from here.
    fn html(number: u64) -> String {
        let on = |nth| (3 * number + nth) % PAGES;
        format!(
            "<title>{number}</title><p>Back to <a href='{}#top'>the page before</a>, on to <a href=/pages/{}>one</a>,
            <A HREF=\"../pages/{}\">another</A> or <a class=next href='./{}'>a third</a>.
            <!-- <a href='/not/a/link'> --> <a name=here>No link</a>, <a href='/gone'>a page that is gone</a>,
            <a href='mailto:a@b.example'>a letter</a>, <a href='http://elsewhere.example/'>another site</a>.",
            number / 3,
            on(1),
            on(2),
            on(3),
        )
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let site = Arc::new(Site {
        visits: (0..PAGES).map(|_| AtomicU64::default()).collect(),
        now: AtomicU64::default(),
        most: AtomicU64::default(),
    });
    let app = Router::new().route("/pages/{number}", get(Site::page)).with_state(Arc::clone(&site));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let start = Url::parse(&format!("http://{}/pages/0", listener.local_addr()?))?;
    tokio::spawn(async move { axum::serve(listener, app).await });

    println!("crawling {start} with at most {IN_FLIGHT} requests in flight");
    let began = Instant::now();
    let Crawl { pages, links, dead } = crawl(start).await?;
    println!("{pages} pages and {links} links in {:.2?}", began.elapsed());
    for error in &dead {
        println!("dead: {error}");
    }
    let most = site.most.load(Ordering::Relaxed);
    println!("the site had at most {most} requests at once");

    assert_eq!((pages as u64, dead.len()), (PAGES, 1));
    assert_eq!(most, IN_FLIGHT, "the limit was not kept, or not used");
    for (number, visits) in site.visits.iter().enumerate() {
        assert_eq!(visits.load(Ordering::Relaxed), 1, "visits of page {number}");
    }
    Ok(())
}
