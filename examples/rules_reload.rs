//! Limits from a file, changed while the service runs, with what clients have spent.
//!
//! `cargo run --features axum,rules --example rules_reload` writes a file of rules, serves under it, edits the file and
//! reloads it, and ends; with an error if a limit was not kept.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

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

/// What a service does when it is told to read its rules again. An error, in the file or in a rule, says where.
fn reload(rules: &Rules, file: &Path) -> Result<(), Box<dyn Error>> {
    Ok(rules.reload(toml::from_str(&std::fs::read_to_string(file)?)?)?)
}

/// Five logins, of which so many are to be admitted.
async fn logins(client: &reqwest::Client, url: &str, admitted: usize) -> Result<(), Box<dyn Error>> {
    let mut answers = Vec::new();
    let mut told = String::new();
    for _ in 0..5 {
        let response = client.post(format!("{url}/login")).send().await?;
        answers.push(response.status().as_u16().to_string());
        told = response.headers()["ratelimit"].to_str()?.to_owned();
    }
    println!("POST /login  {}  {told}", answers.join(" "));
    match answers.iter().filter(|status| *status == "200").count() {
        passed if passed == admitted => Ok(()),
        passed => Err(format!("{passed} passed where {admitted} may").into()),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::temp_dir().join(format!("tollgate-rules-{}.toml", std::process::id()));
    std::fs::write(&file, FIRST)?;
    let rules = Rules::new(toml::from_str(&std::fs::read_to_string(&file)?)?)?;
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
    logins(&client, &url, 3).await?;

    println!("\n5 a minute: the three are not forgotten.");
    std::fs::write(&file, FIRST.replace("3/min", "5/min"))?;
    reload(&rules, &file)?;
    logins(&client, &url, 2).await?;

    println!("\na file that is wrong changes nothing:");
    for (right, wrong) in [("POST", "post"), ("20/day", "20/dy")] {
        std::fs::write(&file, FIRST.replace(right, wrong))?;
        match reload(&rules, &file) {
            Ok(()) => return Err("it should have been refused".into()),
            Err(error) => println!("{error}"),
        }
    }
    logins(&client, &url, 0).await?;

    println!("\nan administrator forgives:");
    if let Some(login) = rules.rule("login") {
        let client = login.key(&["127.0.0.1"])?;
        println!("left for 127.0.0.1: {:?}", login.limit().snapshot(&client).map(|now| now.remaining));
        login.limit().reset(&client);
    }
    logins(&client, &url, 5).await?;
    std::fs::remove_file(&file)?;
    Ok(())
}
