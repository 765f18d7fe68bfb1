//! What turns an ended conversation into a record.
//!
//! Owns: the steps of a job, the worker that claims and runs them, understanding (here: `local`), effects and their
//! delivery loop.
//! Leaves to others: clients' sockets, HTTP routes, durability (`auricle-store`).
//! Invariants: an attempt has a deadline and a panic ends only itself; a finished step is never done again; nothing is
//! written without the lease.

pub mod deliver;
pub mod understanding;

pub use deliver::*;
pub use understanding::*;
