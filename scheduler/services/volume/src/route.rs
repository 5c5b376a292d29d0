//! Each path is spelled in two ways: `/v3/volumes` and, as the catalogue has it, `/v3/{project}/volumes`. A project in
//! the path must be the token's.
use crate::Volumes;
use pilvi_kit::{Call, Fault, Reply, Route};
use std::{future::Future, sync::Arc};

/// Name of the project's segment in patterns.
const PROJECT: &str = "project";

macro_rules! checked {
    ($($name:ident),+) => {$(
        /// A route whose calls name their own project, if any.
        pub fn $name<F, Fut>(path: &'static str, handler: F) -> Route<Volumes>
        where
            F: Fn(Arc<Volumes>, Call) -> Fut + Send + Sync + Clone + 'static,
            Fut: Future<Output = Reply> + Send + 'static,
        {
            Route::$name(path, move |svc, call| {
                let handler = handler.clone();
                async move {
                    check(&call)?;
                    handler(svc, call).await
                }
            })
        }
    )+};
}
checked!(get, post, put, delete);

fn check(call: &Call) -> Result<(), Fault> {
    let named = call.param(PROJECT);
    match call.caller().project_id() {
        Some(own) if !named.is_empty() && named != own => Err(Fault::bad_request("Malformed request url")),
        _ => Ok(()),
    }
}

/// The same routes below a project.
pub fn of_project(mut routes: Vec<Route<Volumes>>) -> Vec<Route<Volumes>> {
    for route in &mut routes {
        // Paths live as long as the process: they are made once, at start.
        let path = route.path.replacen("/v3/", &format!("/v3/{{{PROJECT}}}/"), 1);
        route.path = Box::leak(path.into_boxed_str());
    }
    routes
}
