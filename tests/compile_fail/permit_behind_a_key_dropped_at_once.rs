//~ unused `ByPermit` that must be used
//~ hold it until the work is done
#![deny(unused_must_use)]
use tollgate::{Concurrency, Limiter, LimiterExt};
fn main() -> Result<(), tollgate::Denied> {
    let slots = Concurrency::new(2).by(|_: &u32| ());
    slots.try_acquire(&7, 1.into())?;
    Ok(())
}
