//! Metadata definitions: catalogues of the properties that images, flavors and volumes may carry, for user
//! interfaces. Namespaces hold objects, properties, tags and the resource types they are meant for.
pub mod api;
pub(crate) mod catalogue;
pub mod model;
pub mod ops;
pub mod part;
pub(crate) mod schemas;
mod view;
