//! Limits from a file, changed while the service runs, with what clients have spent.
//!
//! `cargo run --features axum,rules --example rules_reload`

use std::error::Error;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tollgate::rules::Rules;

const FIRST: &str = r#"
[[rules]]
name = "everything"
quotas = ["100/s"]

[[rules]]
name = "login"
route = "/login"
methods = ["POST"]
algorithm = "sliding_window"
quotas = ["3/min", "20/day"]
"#;

async fn logins(client: &reqwest::Client, url: &str) -> Result<(), Box<dyn Error>> {
    let mut answers = Vec::new();
    let mut told = String::new();
    for _ in 0..5 {
        let response = client.post(format!("{url}/login")).send().await?;
        answers.push(response.status().as_u16().to_string());
        told = response.headers()["ratelimit"].to_str()?.to_owned();
    }
    println!("POST /login  {}  {told}", answers.join(" "));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let rules = Rules::new(toml::from_str(FIRST)?)?;
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/login", post(|| async { "welcome" }))
        .layer(rules.layer());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
    });

    let client = reqwest::Client::new();
    println!("3 logins a minute:");
    logins(&client, &url).await?;

    println!("\n5 a minute: the three are not forgotten.");
    rules.reload(toml::from_str(&FIRST.replace("3/min", "5/min"))?)?;
    logins(&client, &url).await?;

    println!("\na file that is wrong changes nothing:");
    match rules.reload(toml::from_str(&FIRST.replace("POST", "post"))?) {
        Ok(()) => return Err("it should have been refused".into()),
        Err(error) => println!("{error}"),
    }
    logins(&client, &url).await?;

    println!("\nan administrator forgives:");
    if let Some(login) = rules.rule("login") {
        let client = login.key(&["127.0.0.1"])?;
        println!("left for 127.0.0.1: {:?}", login.limit().snapshot(&client).map(|now| now.remaining));
        login.limit().reset(&client);
    }
    logins(&client, &url).await?;
    Ok(())
}
