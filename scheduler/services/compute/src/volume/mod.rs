//! A server's volumes: what was asked for, what it has, and the way between.
//!
//! ```text
//!  create: wishes (a volume of the user's is reserved at once)
//!     placed on a host: what is to be made is made there -> Attaching          one transaction with the claim
//!  attach ------------------------------------------------> Attaching
//!     the host says that the machine has it, or that there is no machine  ---> Attached
//!  detach -------------------------------------------------------------------> Detaching (wanted no more)
//!     the host says that the machine has let go of it ------------------------> none of the server's
//!  delete: set free, or deleted where it was made for the server
//! ```
//! The bytes are the volume service's; compute says only who has them. They lie on one host, and a server runs where
//! its volumes are.
pub mod api;
mod extend;
pub mod image;
pub mod mapping;
pub mod model;
pub mod ops;
pub mod proxy;
