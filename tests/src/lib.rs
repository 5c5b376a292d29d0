//! The project's own judges: [`tidy`](../tests/tidy.rs) holds the source to the invariants of the design,
//! the stories run the real programs with real guests. `tests/run` runs them all in order.
