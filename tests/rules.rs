//! Rules from configuration: which applies, what it keeps over a reload, and what is said of bad ones.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tollgate::http::PeerAddr;
use tollgate::rules::{Problem, Rules, RulesConfig};
use tower::{Layer, Service, ServiceExt, service_fn};

fn rules(text: &str) -> Rules {
    Rules::new(toml::from_str(text).unwrap()).unwrap()
}

fn wrong(text: &str) -> (String, Problem) {
    let error = Rules::new(toml::from_str(text).unwrap()).unwrap_err();
    (error.place().to_owned(), error.problem().clone())
}

struct Call<'a> {
    rules: &'a Rules,
    method: &'a str,
    path: &'a str,
    peer: &'a str,
    headers: &'a [(&'a str, &'a str)],
}

impl Call<'_> {
    async fn send(&self) -> Response<Bytes> {
        let service =
            service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
        let mut request = Request::builder().method(self.method).uri(self.path);
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        let peer = SocketAddr::new(self.peer.parse().unwrap(), 1);
        request.extensions_mut().insert(PeerAddr::from(peer));
        let mut limited = self.rules.layer().layer(service);
        let response = limited.ready().await.unwrap().call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }
}

const PEER: &str = "203.0.113.7";

/// How many of up to `most` calls are admitted in a row.
async fn admitted(call: &Call<'_>, most: usize) -> usize {
    for n in 0..most {
        if call.send().await.status() != StatusCode::OK {
            return n;
        }
    }
    most
}

fn call<'a>(rules: &'a Rules, method: &'a str, path: &'a str) -> Call<'a> {
    Call { rules, method, path, peer: PEER, headers: &[] }
}

#[tokio::test(start_paused = true)]
async fn the_most_specific_rule_applies() {
    let rules = rules(
        r#"
        [[rules]]
        name = "rest"
        quotas = ["9/h"]
        [[rules]]
        name = "users"
        route = "/users/{id}"
        quotas = ["5/h"]
        [[rules]]
        name = "me"
        route = "/users/me"
        quotas = ["3/h"]
        [[rules]]
        name = "change of users"
        route = "/users/{id}"
        methods = ["POST", "PUT"]
        quotas = ["2/h"]
        "#,
    );
    assert_eq!(admitted(&call(&rules, "POST", "/users/7"), 20).await, 2);
    assert_eq!(admitted(&call(&rules, "PUT", "/users/8"), 20).await, 0, "it is one limit");
    assert_eq!(admitted(&call(&rules, "GET", "/users/7"), 20).await, 5);
    assert_eq!(admitted(&call(&rules, "GET", "/users/m%65"), 20).await, 3, "an escape leads around no rule");
    assert_eq!(admitted(&call(&rules, "POST", "/users/me"), 20).await, 0);
    assert_eq!(admitted(&call(&rules, "GET", "/"), 4).await, 4);
    assert_eq!(admitted(&call(&rules, "BREW", "/coffee?x=1"), 20).await, 5);
    let other = Call { peer: "203.0.113.8", ..call(&rules, "GET", "/") };
    assert_eq!(admitted(&other, 20).await, 9);
}

#[tokio::test(start_paused = true)]
async fn rules_that_always_apply_are_taken_with_the_most_specific_all_or_none() {
    let rules = rules(
        r#"
        [[rules]]
        name = "all"
        always = true
        key = []
        quotas = ["10/h"]
        [[rules]]
        name = "login"
        route = "/login"
        quotas = ["3/h"]
        "#,
    );
    assert_eq!(admitted(&call(&rules, "POST", "/login"), 20).await, 3);
    let refused = call(&rules, "POST", "/login").send().await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let fields = refused.headers()["ratelimit"].to_str().unwrap();
    assert_eq!(fields, r#""all";r=7;t=1080, "login";r=0;t=1200"#);
    assert!(String::from_utf8_lossy(refused.body()).contains(r#""violated-policies":["login"]"#));
    // What `login` refused was not taken from `all`.
    let other = Call { peer: "203.0.113.8", ..call(&rules, "GET", "/other") };
    assert_eq!(admitted(&other, 20).await, 7);
}

#[tokio::test(start_paused = true)]
async fn several_windows_cost_wait_and_trial() {
    let rules = rules(
        r#"
        [[rules]]
        name = "windows"
        route = "/windows"
        algorithm = "sliding_window"
        quotas = ["3/s", "5/min"]
        cost = 1
        [[rules]]
        name = "dear"
        route = "/dear"
        quotas = ["10/h"]
        cost = 4
        [[rules]]
        name = "patient"
        route = "/patient"
        quotas = ["1/s"]
        wait = "2s"
        [[rules]]
        name = "trial"
        route = "/trial"
        mode = "shadow"
        quotas = ["1/h"]
        [[rules]]
        name = "partly"
        route = "/partly"
        percent = 30
        quotas = ["1/h"]
        "#,
    );
    assert_eq!(admitted(&call(&rules, "GET", "/windows"), 20).await, 3);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(admitted(&call(&rules, "GET", "/windows"), 20).await, 2);
    assert_eq!(admitted(&call(&rules, "GET", "/dear"), 20).await, 2);
    assert_eq!(admitted(&call(&rules, "GET", "/trial"), 20).await, 20);

    let started = tokio::time::Instant::now();
    assert_eq!(admitted(&call(&rules, "GET", "/patient"), 4).await, 4);
    assert_eq!(started.elapsed(), Duration::from_secs(3));

    let mut enforced = 0;
    for host in 0..100 {
        let peer = format!("198.51.100.{host}");
        enforced +=
            usize::from(admitted(&Call { peer: &peer, ..call(&rules, "GET", "/partly") }, 3).await == 1);
    }
    assert!((10..60).contains(&enforced), "{enforced} of 100 are enforced where 30 were asked for");
}

#[tokio::test(start_paused = true)]
async fn keys_of_all_kinds_and_requests_without_them() {
    let rules = rules(
        r#"
        [[rules]]
        name = "by key"
        route = "/key"
        key = ["header:x-api-key"]
        quotas = ["2/h"]
        overrides = { gold = ["4/h"] }
        exempt = ["staff"]
        [[rules]]
        name = "strict"
        route = "/strict"
        key = ["bearer", "method"]
        missing = "reject"
        quotas = ["1/h"]
        [[rules]]
        name = "lax"
        route = "/lax"
        key = ["host"]
        missing = "skip"
        quotas = ["1/h"]
        "#,
    );
    let with = |path, headers| Call { headers, ..call(&rules, "GET", path) };
    assert_eq!(admitted(&with("/key", &[("x-api-key", "a")]), 9).await, 2);
    assert_eq!(admitted(&with("/key", &[("x-api-key", "A")]), 9).await, 2);
    assert_eq!(admitted(&with("/key", &[("x-api-key", "gold")]), 9).await, 4);
    assert_eq!(admitted(&with("/key", &[("x-api-key", "staff")]), 9).await, 9);
    assert_eq!(admitted(&with("/key", &[("x-api-key", "")]), 9).await, 2, "no key: by address");
    assert_eq!(admitted(&with("/key", &[]), 9).await, 0, "the same address");
    assert_eq!(
        admitted(&with("/key", &[("x-api-key", PEER)]), 9).await,
        2,
        "an address as a key is another key"
    );

    let rejected = with("/strict", &[]).send().await;
    assert_eq!(rejected.status(), StatusCode::BAD_REQUEST);
    assert_eq!(admitted(&with("/strict", &[("authorization", "Bearer t")]), 9).await, 1);
    assert_eq!(admitted(&with("/strict", &[("authorization", "bearer t")]), 9).await, 0);

    assert_eq!(admitted(&with("/lax", &[]), 9).await, 9);
    assert_eq!(admitted(&with("/lax", &[("host", "a.example:80")]), 9).await, 1);
    assert_eq!(admitted(&with("/lax", &[("host", "A.EXAMPLE")]), 9).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reload_neither_refills_nor_locks() {
    let text = |quotas: &str, more: &str| {
        format!("[[rules]]\nname = \"api\"\nalgorithm = \"sliding_window\"\nquotas = [{quotas}]\n{more}")
    };
    let rules = rules(&text("\"5/h\"", ""));
    let reload = |text: String| rules.reload(toml::from_str(&text).unwrap()).unwrap();
    let calls = call(&rules, "GET", "/");
    assert_eq!(admitted(&calls, 4).await, 4);
    reload(text("\"5/h\"", ""));
    assert_eq!(admitted(&calls, 9).await, 1, "nothing has come back");
    reload(text("\"8/h\"", ""));
    assert_eq!(admitted(&calls, 9).await, 3, "what the new quota has more");
    reload(text("\"100/min\", \"9/h\"", ""));
    assert_eq!(admitted(&calls, 9).await, 1, "the hour goes on, the minute is new");
    reload(text("\"9/h\"", ""));
    assert_eq!(admitted(&calls, 9).await, 0, "and goes on without the minute");
    reload(text("\"9/h\"", &format!("overrides = {{ \"{PEER}\" = [\"11/h\"] }}")));
    assert_eq!(admitted(&calls, 9).await, 2, "an override keeps what has been spent");
    reload(text("\"9/h\"", ""));
    assert_eq!(admitted(&calls, 9).await, 0, "and so does its end");
    reload(text("\"9/h\"", "mode = \"shadow\""));
    assert_eq!(admitted(&calls, 9).await, 9);
    reload(text("\"9/h\"", "key = []"));
    assert_eq!(admitted(&calls, 20).await, 9, "another key is another state");
}

#[tokio::test(start_paused = true)]
async fn a_reload_reaches_those_who_wait() {
    let text = |quota: &str| format!("[[rules]]\nname = \"api\"\nwait = \"1h\"\nquotas = [\"{quota}\"]");
    let rules = rules(&text("1/h"));
    let calls = call(&rules, "GET", "/");
    calls.send().await;
    let started = tokio::time::Instant::now();
    let (waited, ()) = tokio::join!(calls.send(), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rules.reload(toml::from_str(&text("100/s")).unwrap()).unwrap();
    });
    assert_eq!(waited.status(), StatusCode::OK);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_bad_file_changes_nothing() {
    let rules = rules("[[rules]]\nname = \"api\"\nquotas = [\"2/h\"]");
    let calls = call(&rules, "GET", "/");
    assert_eq!(admitted(&calls, 1).await, 1);
    // The first rule is good and changes the quota; the second is bad.
    let bad = "[[rules]]\nname = \"api\"\nquotas = [\"9/h\"]\n[[rules]]\nname = \"x\"\nroute = \"/{\"\nquotas = [\"1/s\"]";
    let error = rules.reload(toml::from_str(bad).unwrap()).unwrap_err();
    assert_eq!(error.place(), "rules[1] \"x\": route");
    assert_eq!(admitted(&calls, 9).await, 1);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let rule = |more: &str| format!("[[rules]]\nname = \"a\"\nquotas = [\"5/s\"]\n{more}\n");
    let (place, problem) = wrong("[[rules]]\nname = \"a\\n\"\nquotas = [\"5/s\"]");
    assert!(place.starts_with("rules[0]") && matches!(problem, Problem::Name(_)), "{place} {problem}");
    let (place, problem) = wrong(&(rule("") + &rule("")));
    assert_eq!((place.as_str(), problem), ("rules[1] \"a\": name", Problem::NameTaken));
    let (place, problem) = wrong(&(rule("") + "[[rules]]\nname = \"b\"\nquotas = [\"5/s\"]"));
    assert_eq!(
        (place.as_str(), problem),
        ("rules[1] \"b\": route", Problem::Ambiguous("rules[0] \"a\"".into()))
    );
    let (place, problem) = wrong(&rule("methods = [\"GET\", \"get\"]"));
    assert_eq!((place.as_str(), problem), ("rules[0] \"a\": methods[1]", Problem::Method("get".into())));
    let (place, problem) = wrong(&rule("key = [\"header:sp ace\"]"));
    assert_eq!((place.as_str(), problem), ("rules[0] \"a\": key", Problem::Key("header:sp ace".into())));
    let (place, problem) = wrong(
        "[[rules]]\nname = \"a\"\nalgorithm = \"sliding_window\"\nquotas = [\"5/s\", \"5/min burst 9\"]",
    );
    assert!(
        place == "rules[0] \"a\": quotas[1]" && matches!(problem, Problem::Quota(_)),
        "{place} {problem}"
    );
    let (place, problem) =
        wrong(&rule("algorithm = \"sliding_window\"\noverrides = { x = [\"5/s burst 9\"] }"));
    assert!(place == "rules[0] \"a\": overrides.\"x\"[0]" && matches!(problem, Problem::Quota(_)), "{place}");
    let (place, problem) = wrong(&rule("key = [\"host\", \"method\"]\nexempt = [\"x\"]"));
    assert_eq!((place.as_str(), problem), ("rules[0] \"a\": overrides", Problem::KeyHasParts));
    let (place, problem) = wrong("[client_ip]\nsource = \"x-forwarded-for\"\ntrusted = [\"0.0.0.0/0\"]");
    assert!(place == "client_ip" && matches!(problem, Problem::Trust(_)), "{place} {problem}");
    let (place, problem) = wrong("[client_ip]\nhops = 1");
    assert!(place == "client_ip" && matches!(problem, Problem::Pointless(_)), "{place} {problem}");
    // What the format's own reader finds, it finds with line and column.
    let error =
        toml::from_str::<RulesConfig>("[[rules]]\nname = \"a\"\nquotas = [\"5/fortnight\"]").unwrap_err();
    assert!(error.to_string().contains("line 3"), "{error}");
    let error = toml::from_str::<RulesConfig>("[[rules]]\nname = \"a\"\nquota = \"5/s\"").unwrap_err();
    assert!(error.to_string().contains("unknown field `quota`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_administrator_sees_and_changes_keys() {
    let rules = rules("[[rules]]\nname = \"api\"\nquotas = [\"5/h\"]");
    let api = rules.rule("api").unwrap();
    assert!(rules.rule("apu").is_none());
    assert!(api.inspect(&[PEER]).is_none());
    let calls = call(&rules, "GET", "/");
    assert_eq!(admitted(&calls, 2).await, 2);
    assert_eq!(api.inspect(&[PEER]).unwrap().remaining, 3);
    api.penalise(&[PEER], 10).unwrap();
    assert_eq!(api.inspect(&[PEER]).unwrap().debt, 7);
    assert_eq!(admitted(&calls, 9).await, 0);
    api.reset(&[PEER]);
    assert_eq!(admitted(&calls, 9).await, 5);
    assert_eq!(api.census().keys, 1);
    // An address of a network counts as the network's.
    let v6 = Call { peer: "2001:db8::1", ..call(&rules, "GET", "/") };
    v6.send().await;
    assert_eq!(api.inspect(&["2001:db8::ffff"]).unwrap().remaining, 4);
}

#[test]
fn json_reads_as_well() {
    let config: RulesConfig =
        serde_json::from_str(r#"{"rules": [{"name": "a", "quotas": ["5/s"]}]}"#).unwrap();
    assert!(Rules::new(config).is_ok());
}
