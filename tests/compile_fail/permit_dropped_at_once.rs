//~ slots are free again as soon as this is dropped: hold it until the work is done
#![deny(unused_must_use)]
async fn work() -> Result<(), Box<dyn std::error::Error>> {
    tollgate::Concurrency::new(1).acquire(1).await?;
    Ok(())
}
fn main() {
    drop(work());
}
