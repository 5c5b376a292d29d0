//! Names for the world outside: what ports and floating IPs are called is kept so on a name server of the operator's (dynamic
//! updates, `pilvi_dns_update`). Who is published, and how, follows the external DNS integration of the API.
//!
//! ```text
//!  port, floating IP, network, subnets --rule--> Publication (the records of one port or floating IP)
//!                                                     '-- in the same transaction --> NameWish of each name that it touches
//!  NameWish:
//!    1. all Publications of the name -> what it shall have; PublishedName says so, beside what it may have already
//!    2. one update at the server; a name that is new there only if nothing stands at it
//!    3. PublishedName says that this, and no more, is there; the wish goes, unless somebody has wished again
//! ```
//! Whoever dies between any two of these leaves the wish, and the next pass begins anew. What a name may have is written down
//! before the server hears of it, so nothing of ours is there that is not known here; and nothing goes that others have put
//! there: records are taken away one by one, and only those that were ours.
//!
//! A name belongs to the project that has it first: its ports share one set of records; other projects wait until it is free.
pub mod model;
pub mod outage;
pub mod publish;
pub mod rule;
pub mod source;
pub mod sweep;
pub mod tell;

pub use publish::{Publisher, Reverse, Settings};
