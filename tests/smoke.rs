use std::time::Duration;
use tollgate::{LimiterExt, Permit, *};

#[tokio::test(start_paused = true)]
async fn waits_in_line() {
    let api = TokenBucket::new(Quota::per_second(10).burst(1)).unwrap();
    let start = tokio::time::Instant::now();
    let mut set = tokio::task::JoinSet::new();
    for i in 0..5 {
        let api = api.clone();
        set.spawn(async move { api.acquire(1).await.unwrap(); (i, start.elapsed()) });
    }
    while let Some(r) = set.join_next().await { println!("{:?}", r.unwrap()); }
    let c = Concurrency::new(1);
    let both = api.clone().and(c.clone());
    let p = both.acquire(&(), 1.into()).await.unwrap();
    println!("{:?} {:?}", start.elapsed(), c);
    assert!(tokio::time::timeout(Duration::from_secs(5), both.acquire(&(), 1.into())).await.is_err());
    p.refund();
    let _ = both.acquire(&(), 1.into()).await.unwrap();
    println!("{:?}", start.elapsed());
}
