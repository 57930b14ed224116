//! Rules from configuration: which applies, what it keeps over a reload, and what is said of bad ones.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use tollgate::http::{PeerAddr, Shadowed};
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
        let service = service_fn(|request: Request<()>| async move {
            let mut response = Response::new(Empty::<Bytes>::new());
            if let Some(shadowed) = request.extensions().get::<Shadowed>() {
                let reason = format!("{:?}", shadowed.0.reason());
                response.headers_mut().insert("x-shadowed", reason.parse().unwrap());
            }
            Ok::<_, Infallible>(response)
        });
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
async fn a_wider_tier_stops_who_moves_from_network_to_network() {
    let rules = rules(
        r#"
        [[rules]]
        name = "narrow"
        quotas = ["2/h"]
        [[rules]]
        name = "wide"
        always = true
        key = ["client_ip/48"]
        quotas = ["5/h"]
        exempt = ["2001:db8:ffff::/48", "::ffff:198.51.100.0/120"]
        "#,
    );
    let mut passed = 0;
    for network in 0..9 {
        let peer = format!("2001:db8:1:{network}::1");
        passed += admitted(&Call { peer: &peer, ..call(&rules, "GET", "/") }, 9).await;
    }
    assert_eq!(passed, 5);
    for (network, passes) in [("2001:db8:2:1::1", 2), ("203.0.113.7", 2), ("203.0.113.8", 2)] {
        assert_eq!(
            admitted(&Call { peer: network, ..call(&rules, "GET", "/") }, 9).await,
            passes,
            "{network}"
        );
    }
    let wide = rules.rule("wide").unwrap();
    let of = |text| wide.limit().snapshot(&wide.key(&[text]).unwrap()).map(|now| now.remaining);
    assert_eq!((of("2001:db8:2:7::9"), of("2001:db8:1::/48")), (Some(3), Some(0)));
    // Whom the wide one exempts it keeps no state of.
    for peer in ["2001:db8:ffff:1::1", "198.51.100.7"] {
        assert_eq!(admitted(&Call { peer, ..call(&rules, "GET", "/") }, 9).await, 2);
        assert_eq!(of(peer), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_on_trial_refuses_no_request_without_its_key() {
    let rules = rules(
        r#"
        [[rules]]
        name = "tried"
        route = "/tried"
        key = ["bearer"]
        missing = "reject"
        mode = "shadow"
        quotas = ["1/h"]
        [[rules]]
        name = "shared"
        route = "/shared"
        key = ["bearer"]
        missing = "reject"
        percent = 50
        quotas = ["1/h"]
        [[rules]]
        name = "by address"
        route = "/address"
        mode = "shadow"
        quotas = ["1/h"]
        [[rules]]
        name = "all"
        always = true
        key = []
        quotas = ["5/h"]
        "#,
    );
    for path in ["/tried", "/shared"] {
        let passed = call(&rules, "GET", path).send().await;
        assert_eq!(passed.status(), StatusCode::OK, "{path}");
        assert_eq!(passed.headers()["x-shadowed"], "NoKey", "{path}");
    }
    let service =
        service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
    let nobodys = Request::get("/address").body(()).unwrap();
    let passed = rules.layer().layer(service).oneshot(nobodys).await.unwrap();
    assert_eq!(passed.status(), StatusCode::OK, "the server tells no peer");
    let all = rules.rule("all").unwrap();
    assert_eq!(all.limit().snapshot(&all.key(&[]).unwrap()).unwrap().remaining, 2, "the others are taken");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_rule_on_trial() {
    let rules = rules(
        r#"
        [[rules]]
        name = "slow"
        wait = "1min"
        quotas = ["1 per 10s"]
        [[rules]]
        name = "tried"
        always = true
        mode = "shadow"
        wait = "1h"
        quotas = ["1/h"]
        "#,
    );
    let started = tokio::time::Instant::now();
    assert!(!call(&rules, "GET", "/").send().await.headers().contains_key("x-shadowed"));
    let second = call(&rules, "GET", "/").send().await;
    assert_eq!(second.headers()["x-shadowed"], "Exhausted");
    assert_eq!(started.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn waits_for_several_rules_are_one_wait() {
    let rules = rules(
        r#"
        [[rules]]
        name = "each"
        wait = "2s"
        quotas = ["1/s burst 1"]
        [[rules]]
        name = "all"
        always = true
        key = []
        wait = "2s"
        quotas = ["1/s burst 2"]
        "#,
    );
    let started = tokio::time::Instant::now();
    let from = |host: u8| {
        let rules = &rules;
        async move {
            let peer = format!("198.51.100.{host}");
            let status = Call { peer: &peer, ..call(rules, "GET", "/") }.send().await.status().as_u16();
            (status, started.elapsed().as_secs())
        }
    };
    assert_eq!(from(1).await, (200, 0));
    // The first came first, and waits a second for its own key: it is granted before those that came later.
    let (again, b, c, d) = tokio::join!(from(1), from(2), from(3), from(4));
    assert_eq!(again, (200, 1));
    assert_eq!([b, c], [(200, 0), (200, 2)]);
    assert_eq!(d, (429, 2), "it waits for two seconds in all");
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
        wrong(&rule("algorithm = \"sliding_window\"\noverrides = { \"10.0.0.1\" = [\"5/s burst 9\"] }"));
    assert!(
        place == "rules[0] \"a\": overrides.\"10.0.0.1\"[0]" && matches!(problem, Problem::Quota(_)),
        "{place}"
    );
    let (place, problem) = wrong(&rule("key = [\"host\", \"method\"]\nexempt = [\"x\"]"));
    let parts = Problem::KeyParts { has: 2, given: 1 };
    assert_eq!((place.as_str(), problem), ("rules[0] \"a\": exempt[0]", parts));
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
    let client = api.key(&[PEER]).unwrap();
    assert!(api.limit().snapshot(&client).is_none());
    let calls = call(&rules, "GET", "/");
    assert_eq!(admitted(&calls, 2).await, 2);
    assert_eq!(api.limit().snapshot(&client).unwrap().remaining, 3);
    api.limit().charge(&client, 10).unwrap();
    assert_eq!(api.limit().snapshot(&client).unwrap().debt, 7);
    assert_eq!(admitted(&calls, 9).await, 0);
    api.limit().reset(&client);
    assert_eq!(admitted(&calls, 9).await, 5);
    assert_eq!(api.limit().stats().keys, 1);
    // An address of a network counts as the network's.
    let v6 = Call { peer: "2001:db8::1", ..call(&rules, "GET", "/") };
    v6.send().await;
    for text in ["2001:db8::ffff", "2001:DB8::/64", "2001:db8::1/128"] {
        let client = api.key(&[text]).unwrap();
        assert_eq!(api.limit().snapshot(&client).unwrap().remaining, 4, "{text}");
    }
    assert!(matches!(api.key(&["2001:db8::/48"]), Err(Problem::NoSuchKey(..))), "several clients");
    assert_eq!(api.key(&[]), Err(Problem::KeyParts { has: 1, given: 0 }));
}

#[tokio::test(start_paused = true)]
async fn clients_that_count_by_the_fallback_have_a_name_too() {
    let rules = rules("[[rules]]\nname = \"api\"\nkey = [\"header:x-api-key\"]\nquotas = [\"5/h\"]");
    call(&rules, "GET", "/").send().await;
    let api = rules.rule("api").unwrap();
    let client = api.fallback_key(PEER).unwrap();
    assert_eq!(api.limit().snapshot(&client).unwrap().remaining, 4);
    assert!(api.fallback_key("nobody").is_err());
}

#[tokio::test(start_paused = true)]
async fn head_comes_under_the_rule_of_get_unless_another_names_it() {
    let text = "[[rules]]\nname = \"get\"\nmethods = [\"GET\", \"GET\"]\nquotas = [\"3/h\"]\n";
    let both = rules(text);
    assert_eq!(admitted(&call(&both, "HEAD", "/"), 9).await, 3);
    assert_eq!(admitted(&call(&both, "GET", "/"), 9).await, 0);
    let apart =
        rules(&(text.to_owned() + "[[rules]]\nname = \"head\"\nmethods = [\"HEAD\"]\nquotas = [\"1/h\"]"));
    assert_eq!(admitted(&call(&apart, "HEAD", "/"), 9).await, 1);
    assert_eq!(admitted(&call(&apart, "GET", "/"), 9).await, 3);
}

#[tokio::test(start_paused = true)]
async fn routes_match_however_they_are_written() {
    let rule = |route: &str| format!("[[rules]]\nname = \"a\"\nroute = \"{route}\"\nquotas = [\"1/h\"]");
    let pairs = [
        ("/%7Euser", "/~user"),
        ("/~user", "/%7euser"),
        ("/a%2fb", "/a%2Fb"),
        ("/café", "/caf%C3%A9"),
        ("/{id}/x", "/7/x"),
    ];
    for (route, path) in pairs {
        assert_eq!(admitted(&call(&rules(&rule(route)), "GET", path), 3).await, 1, "{route} {path}");
    }
    for route in ["login", "", "*", "/login?x=1", "/a#b", "POST /login", "https://x/login", "{*x}", "/a b"] {
        let (place, problem) = wrong(&rule(route));
        assert!(
            place.ends_with("route") && matches!(problem, Problem::Route(_)),
            "{route} {place} {problem}"
        );
    }
    // What parameters are called tells no routes apart, and hides no method.
    let rules = rules(
        "[[rules]]\nname = \"all\"\nroute = \"/u/{id}\"\nquotas = [\"9/h\"]\n[[rules]]\nname = \"get\"\nroute = \"/u/{name}\"\nmethods = [\"GET\"]\nquotas = [\"1/h\"]",
    );
    assert_eq!(admitted(&call(&rules, "GET", "/u/7"), 9).await, 1);
    assert_eq!(admitted(&call(&rules, "PUT", "/u/7"), 20).await, 9);
}

#[tokio::test(start_paused = true)]
async fn single_keys_are_meant_however_they_are_written() {
    let rule = |key: &str, more: &str| {
        format!("[[rules]]\nname = \"a\"\nkey = [\"{key}\"]\nquotas = [\"1/h\"]\n{more}")
    };
    let exempt = |key: &str, text: &str| rules(&rule(key, &format!("exempt = [\"{text}\"]")));
    for (text, passes) in [(PEER, 3), ("203.0.113.7/32", 3), ("203.0.0.0/16", 3), ("10.0.0.0/8", 1)] {
        assert_eq!(admitted(&call(&exempt("client_ip", text), "GET", "/"), 3).await, passes, "{text}");
    }
    let with_host = exempt("host", "Example.COM:8080");
    let asked = Call { headers: &[("host", "example.com")], ..call(&with_host, "GET", "/") };
    assert_eq!(admitted(&asked, 3).await, 3);
    assert_eq!(admitted(&call(&exempt("path", "/%7Ea"), "GET", "/~a"), 3).await, 3);
    for (key, text) in [("client_ip", "nobody"), ("method", "get"), ("path", "a"), ("client_ip", "")] {
        let (place, problem) = wrong(&rule(key, &format!("exempt = [\"{text}\"]")));
        assert!(
            place.ends_with("exempt[0]") && matches!(problem, Problem::NoSuchKey(..)),
            "{place} {problem}"
        );
    }
    let (place, problem) = wrong(&rule("client_ip", "overrides = { \"10.0.0.0/8\" = [\"2/h\"] }"));
    assert!(place.contains("overrides") && matches!(problem, Problem::NoSuchKey(..)), "{place} {problem}");
    let (_, problem) = wrong(&rule("host", "overrides = { a = [\"2/h\"], A = [\"3/h\"] }"));
    assert!(matches!(problem, Problem::KeyTwice(_)), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn many_rules_are_asked_once_each() {
    let mut text = String::new();
    for n in 0..40 {
        writeln!(text, "[[rules]]\nname = \"r{n}\"\nalways = true\nquotas = [\"{}/h\"]", 3 + n).unwrap();
    }
    let rules = rules(&text);
    assert_eq!(admitted(&call(&rules, "GET", "/"), 9).await, 3);
    let r39 = rules.rule("r39").unwrap();
    assert_eq!(r39.limit().snapshot(&r39.key(&[PEER]).unwrap()).unwrap().remaining, 39, "all or none");
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_would_not_wait_refuses_at_once_beside_one_that_would() {
    let rules = rules(
        r#"
        [[rules]]
        name = "slow"
        always = true
        wait = "1min"
        quotas = ["1 per 10s"]
        [[rules]]
        name = "strict"
        quotas = ["1 per 5s"]
        "#,
    );
    let calls = call(&rules, "GET", "/");
    assert_eq!(admitted(&calls, 1).await, 1);
    let started = tokio::time::Instant::now();
    let refused = calls.send().await;
    assert_eq!((refused.status(), started.elapsed()), (StatusCode::TOO_MANY_REQUESTS, Duration::ZERO));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(calls.send().await.status(), StatusCode::OK);
    assert_eq!(started.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn costs_are_settled_in_the_price_of_each_rule() {
    use tollgate::http::Settle;
    let rules = rules(
        "[[rules]]\nname = \"dear\"\nquotas = [\"20/h\"]\ncost = 5\n[[rules]]\nname = \"all\"\nalways = true\nquotas = [\"20/h\"]",
    );
    let service =
        service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) });
    let layer = rules.layer().settle_with(|_| Settle::Cost(2.into()));
    let mut request = Request::new(());
    request.extensions_mut().insert(PeerAddr::from(SocketAddr::new(PEER.parse().unwrap(), 1)));
    let _ = layer.layer(service).oneshot(request).await.unwrap().into_body().collect().await.unwrap();
    for (name, left) in [("dear", 10), ("all", 18)] {
        let rule = rules.rule(name).unwrap();
        assert_eq!(rule.limit().snapshot(&rule.key(&[PEER]).unwrap()).unwrap().remaining, left, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_was_spent_whatever_else_it_changes() {
    let first = "[[rules]]\nname = \"a\"\nkey = [\"header:x\"]\nquotas = [\"4/h\"]\n";
    let rules = rules(first);
    let calls = Call { headers: &[("x", "1")], ..call(&rules, "GET", "/") };
    assert_eq!(admitted(&calls, 3).await, 3);
    for text in [
        first.to_owned() + "missing = \"reject\"",
        "[client_ip]\nsource = \"x-forwarded-for\"\ntrusted = [\"10.0.0.0/8\"]\n".to_owned() + first,
        first.replace("header:x", "header:X"),
        first.to_owned() + "max_keys = 100000\nmode = \"shadow\"",
        "[[rules]]\nname = \"b\"\nroute = \"/b\"\nquotas = [\"1/s\"]\n".to_owned() + first,
        first.to_owned() + "wait = \"1s\"\nmethods = [\"POST\", \"GET\"]\nroute = \"/{*all}\"\npercent = 100",
    ] {
        rules.reload(toml::from_str(&text).unwrap()).unwrap();
        let rule = rules.rule("a").unwrap();
        let left = rule.limit().snapshot(&rule.key(&["1"]).unwrap()).unwrap().remaining;
        assert_eq!(left, 1, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_override_reaches_those_who_wait() {
    let text = |more: &str| format!("[[rules]]\nname = \"a\"\nwait = \"1h\"\nquotas = [\"100/s\"]\n{more}");
    let rules = rules(&text(&format!("overrides = {{ \"{PEER}\" = [\"1/h\"] }}")));
    let calls = call(&rules, "GET", "/");
    calls.send().await;
    let started = tokio::time::Instant::now();
    let (waited, ()) = tokio::join!(calls.send(), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        rules.reload(toml::from_str(&text("")).unwrap()).unwrap();
    });
    assert_eq!(waited.status(), StatusCode::OK);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_given_up_gives_back_what_it_holds() {
    let rules = rules(
        "[[rules]]\nname = \"a\"\nwait = \"1h\"\nquotas = [\"1/h\"]\n[[rules]]\nname = \"all\"\nalways = true\nwait = \"1h\"\nquotas = [\"9/h\"]",
    );
    let calls = call(&rules, "GET", "/");
    calls.send().await;
    let left = |name| {
        let rule = rules.rule(name).unwrap();
        rule.limit().snapshot(&rule.key(&[PEER]).unwrap()).unwrap()
    };
    assert!(tokio::time::timeout(Duration::from_secs(1), calls.send()).await.is_err());
    assert_eq!((left("a").waiting, left("all").waiting), (0, 0));
    assert_eq!(left("all").remaining, 8);
}

#[test]
fn metrics_count_requests_and_not_tries() {
    let recorder = metrics_util::debugging::DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let rules = rules("[[rules]]\nname = \"slow\"\nwait = \"1min\"\nquotas = [\"1 per 10s\"]\n[[rules]]\nname = \"free\"\nalways = true\nquotas = [\"9/h\"]");
            assert_eq!(admitted(&call(&rules, "GET", "/"), 2).await, 2);
        });
    });
    let mut counted = std::collections::BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let limit = key.key().labels().next().map(|label| label.value().to_owned());
        if let metrics_util::debugging::DebugValue::Counter(count) = value {
            counted.insert(format!("{} {}", key.key().name(), limit.unwrap_or_default()), count);
        }
    }
    assert_eq!(counted["tollgate_admitted_total slow"], 2);
    assert_eq!(counted["tollgate_admitted_total free"], 2);
    assert!(!counted.keys().any(|name| name.starts_with("tollgate_refused_total")), "{counted:?}");
}

#[test]
fn rules_that_cannot_be_meant_do_not_start() {
    let rule = |more: &str| format!("[[rules]]\nname = \"a\"\nquotas = [\"5/s\"]\n{more}\n");
    for (more, field) in [
        ("cost = 6", "cost"),
        ("cost = 0", "cost"),
        ("percent = 150", "percent"),
        ("percent = 0", "percent"),
        ("percent = 5\nmode = \"shadow\"", "percent"),
        ("max_keys = 0", "max_keys"),
    ] {
        let (place, problem) = wrong(&rule(more));
        assert!(
            place.ends_with(field) && matches!(problem, Problem::Pointless(_)),
            "{more}: {place} {problem}"
        );
    }
    let (place, problem) = wrong("[[rules]]\nname = \"a\"\nquotas = []");
    assert!(place.ends_with("quotas") && matches!(problem, Problem::Quota(_)), "{place} {problem}");
    let (place, problem) = wrong(&rule("overrides = { \"10.0.0.1\" = [\"1/s\"] }\nexempt = [\"10.0.0.1\"]"));
    assert!(place.ends_with("exempt[0]") && matches!(problem, Problem::KeyTwice(_)), "{place} {problem}");
}

#[test]
fn json_reads_as_well() {
    let config: RulesConfig =
        serde_json::from_str(r#"{"rules": [{"name": "a", "quotas": ["5/s"]}]}"#).unwrap();
    assert!(Rules::new(config).is_ok());
}
