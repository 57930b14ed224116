//! The HTTP layer on real servers, with real clients and hostile ones.

mod edge;
mod hostile;
mod permits;
mod served;
mod told;
