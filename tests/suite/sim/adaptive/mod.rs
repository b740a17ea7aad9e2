//! Adaptive media, seen to: publishers whose layers have real rates, viewers that answer like
//! browsers, links that carry so much and no more, and a table of what became of each plan.
//!
//! `table` runs all plans and compares with `tests/data/adaptive-plans.txt`. Keys are installed and
//! every choice is seeded, so a run repeats bit for bit, and a change of behaviour shows as a diff.

mod av1;
mod descriptor;
mod encoder;
mod fills;
mod incoming;
mod judge;
mod plan;
mod scene;
mod screen;
pub(crate) mod viewer;

mod links;
mod lost_keys;
mod pacing;
mod proofs;
mod sharing;
mod slow;
mod table;
