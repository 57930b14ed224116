//! Streams and sinks at a limiter's pace.

use std::time::Duration;

use futures::{SinkExt, StreamExt, stream};
use tokio::time::Instant;
use tollgate::pace::PaceExt;
use tollgate::{Queue, Quota, TokenBucket};

fn ten_a_second() -> TokenBucket {
    TokenBucket::new(Quota::per_second(10).burst(1)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stream_passes_items_at_the_pace_and_its_end_spends_nothing() {
    let (bucket, start) = (ten_a_second(), Instant::now());
    let items: Vec<_> = stream::iter(0..5).paced(bucket.clone(), 1).map(Result::unwrap).collect().await;
    assert_eq!(items, [0, 1, 2, 3, 4]);
    // The end was asked for like an item, half a second in, and refunded.
    assert_eq!(start.elapsed(), Duration::from_millis(500));
    assert_eq!(bucket.snapshot().remaining, 1);
}

#[tokio::test(start_paused = true)]
async fn a_sink_takes_items_at_the_pace() {
    let start = Instant::now();
    let mut sink = Vec::new().paced(ten_a_second(), 1);
    for item in 0..5 {
        sink.send(item).await.unwrap();
    }
    assert_eq!(start.elapsed(), Duration::from_millis(400));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_an_item_and_loses_none() {
    let bucket =
        TokenBucket::builder(Quota::per_second(10).burst(1)).queue(Queue::new().limit(0)).build().unwrap();
    let mut paced = stream::iter(0..2).paced(bucket, 1);
    assert_eq!(paced.next().await.unwrap(), Ok(0));
    assert!(paced.next().await.unwrap().is_err());
    tokio::time::advance(Duration::from_millis(100)).await;
    assert_eq!(paced.next().await.unwrap(), Ok(1));
}
