//! Workers on a bounded queue, with a limit on the work and two clean ends: drained, and cancelled.
//!
//! `cargo run --example worker_pool` counts primes, two jobs at a time and at most 10,000 an hour: once to the end of
//! the queue, once until it is cancelled in the middle. Exits with an error if a job was lost or done twice, or if a
//! permit did not come back.

use std::error::Error;
use std::sync::Arc;

use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tollgate::{And, Concurrency, LimiterExt, Quota, SlidingWindow};

const WORKERS: usize = 8;
const QUEUE: usize = 16;
const JOBS: u64 = 100;
/// Each job looks for primes among so many numbers.
const SPAN: u64 = 2_000;
/// tokio would start hundreds of blocking threads. The machine has only so many cores.
const AT_ONCE: u64 = 2;
const HOURLY: Quota = Quota::per_hour(10_000).checked();

type BoxError = Box<dyn Error + Send + Sync>;
type Limit = And<(SlidingWindow, Concurrency)>;
type Job = u64;

/// What became of jobs: done, with their results, or handed back.
#[derive(Default)]
struct Outcome {
    done: Vec<(Job, usize)>,
    handed_back: Vec<Job>,
}

/// Works until the queue ends or it is told to stop. Then it ends the job it works on, and hands back one that still
/// waits for a permit.
async fn worker(
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
    limit: Limit,
    stop: CancellationToken,
) -> Result<Outcome, BoxError> {
    let mut outcome = Outcome::default();
    let next = || async { queue.lock().await.recv().await };
    while let Some(Some(job)) = stop.run_until_cancelled(next()).await {
        // Dropped in the middle of its wait, an ask leaves the line and gives back what it has taken so far.
        let Some(permit) = stop.run_until_cancelled(limit.acquire(1)).await else {
            outcome.handed_back.push(job);
            break;
        };
        let _permit = permit?;
        let primes = tokio::task::spawn_blocking(move || primes_of(job)).await?;
        outcome.done.push((job, primes));
    }
    Ok(outcome)
}

/// How many of the job's numbers are prime.
fn primes_of(job: Job) -> usize {
    let is_prime = |n: &u64| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0);
    (SPAN * job..SPAN * (job + 1)).filter(is_prime).count()
}

async fn run(cancelled: bool) -> Result<usize, BoxError> {
    let (hourly, slots) = (SlidingWindow::new(HOURLY)?, Concurrency::new(AT_ONCE));
    // One decision: who waits for a slot and then gives up has spent nothing of the hour.
    let limit = hourly.clone().and(slots.clone());
    let stop = CancellationToken::new();
    let (jobs, queue) = mpsc::channel(QUEUE);
    let queue = Arc::new(Mutex::new(queue));
    let workers: JoinSet<_> =
        (0..WORKERS).map(|_| worker(Arc::clone(&queue), limit.clone(), stop.clone())).collect();

    for job in 0..JOBS {
        jobs.send(job).await?; // waits while the queue is full
    }
    if cancelled {
        stop.cancel();
    }
    drop(jobs); // no more will come: workers that are not told to stop end with the queue

    let mut all = Outcome::default();
    for outcome in workers.join_all().await {
        let Outcome { done, handed_back } = outcome?;
        all.done.extend(done);
        all.handed_back.extend(handed_back);
    }
    let in_hand = all.handed_back.len();
    let mut queue = queue.lock().await;
    while let Some(job) = queue.recv().await {
        all.handed_back.push(job);
    }
    let (done, left) = (all.done.len(), all.handed_back.len() - in_hand);
    println!("{JOBS} jobs accepted: {done} done, {in_hand} handed back by workers, {left} left in the queue");

    let mut jobs: Vec<Job> = all.done.iter().map(|(job, _)| *job).chain(all.handed_back).collect();
    jobs.sort_unstable();
    assert!(jobs.into_iter().eq(0..JOBS), "each job is done or handed back, once");
    let (hourly, slots) = (hourly.snapshot(), slots.snapshot());
    println!("{} of the hour's {} left, {} slots free", hourly.remaining, hourly.capacity, slots.remaining);
    assert_eq!(hourly.remaining, hourly.capacity - done as u64, "what was done is charged, and nothing else");
    assert_eq!((slots.remaining, slots.waiting), (AT_ONCE, 0));
    Ok(all.done.into_iter().map(|(_, primes)| primes).sum())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    println!("drained:");
    let primes = run(false).await?;
    println!("{primes} primes below {}", SPAN * JOBS);
    assert_eq!(primes, 17_984);
    println!("\ncancelled:");
    run(true).await?;
    Ok(())
}
