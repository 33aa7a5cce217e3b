//! The two ends of a draft-and-verify conversation over links of every kind, and what the controller makes of them.

mod faults;
mod links;
mod quotes;
mod regret;
mod world;
