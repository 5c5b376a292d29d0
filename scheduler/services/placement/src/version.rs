//! Microversions of placement, newest first, and the version document.
//!
//! Only the `view.rs` files compare versions; they do it through the names below.
use crate::{Placement, fault};
use pilvi_kit::{Call, Microversions, Reply, Response, Route, Version, clock};
use serde_json::json;
use std::sync::Arc;

/// `required=in:A,B` (any of) and repeated `required`.
pub const ANY_TRAITS: Version = Version(1, 39);
/// Consumers have types; usages are told by type.
pub const CONSUMER_TYPES: Version = Version(1, 38);
/// A provider may be given another parent.
pub const REPARENT: Version = Version(1, 37);
/// `same_subtree`, and groups that name no resources.
pub const SAME_SUBTREE: Version = Version(1, 36);
/// `root_required`.
pub const ROOT_REQUIRED: Version = Version(1, 35);
/// Candidates say which provider serves which group.
pub const MAPPINGS: Version = Version(1, 34);
/// Group suffixes may be words.
pub const WORD_SUFFIX: Version = Version(1, 33);
/// `member_of=!aggregate`.
pub const FORBIDDEN_AGGREGATES: Version = Version(1, 32);
/// `in_tree` in candidates.
pub const CANDIDATES_IN_TREE: Version = Version(1, 31);
/// `POST /reshaper`.
pub const RESHAPER: Version = Version(1, 30);
/// Candidates see trees of providers.
pub const NESTED: Version = Version(1, 29);
/// Consumers have generations.
pub const CONSUMER_GENERATIONS: Version = Version(1, 28);
/// Summaries show every class of a provider, not only those asked for.
pub const ALL_CLASSES: Version = Version(1, 27);
/// `reserved` may equal `total`.
pub const RESERVED_ALL: Version = Version(1, 26);
/// Numbered groups of a request.
pub const GROUPS: Version = Version(1, 25);
/// `member_of` may be repeated.
pub const REPEATED_MEMBER_OF: Version = Version(1, 24);
/// Errors have codes.
pub const ERROR_CODES: Version = Version(1, 23);
/// `required=!TRAIT`.
pub const FORBIDDEN_TRAITS: Version = Version(1, 22);
/// `member_of` in candidates.
pub const CANDIDATES_MEMBER_OF: Version = Version(1, 21);
/// `POST /resource_providers` answers with the provider.
pub const CREATE_ANSWERS: Version = Version(1, 20);
/// Setting aggregates takes and changes the provider's generation.
pub const AGGREGATE_GENERATION: Version = Version(1, 19);
/// `required` in lists of providers.
pub const PROVIDERS_REQUIRED: Version = Version(1, 18);
/// `required` in candidates, traits in their summaries.
pub const CANDIDATES_REQUIRED: Version = Version(1, 17);
/// `limit` in candidates.
pub const CANDIDATES_LIMIT: Version = Version(1, 16);
/// `Last-Modified` and `Cache-Control`.
pub const LAST_MODIFIED: Version = Version(1, 15);
/// Parents and roots are shown; `in_tree`.
pub const TREES: Version = Version(1, 14);
/// Allocations as an object by provider; project and user are shown.
pub const ALLOCATIONS_BY_PROVIDER: Version = Version(1, 12);
/// A link to a provider's allocations.
pub const LINK_ALLOCATIONS: Version = Version(1, 11);
/// Traits.
pub const TRAITS: Version = Version(1, 6);
/// `resources` in lists of providers.
pub const PROVIDERS_RESOURCES: Version = Version(1, 4);
/// `member_of` in lists of providers.
pub const PROVIDERS_MEMBER_OF: Version = Version(1, 3);
/// Aggregates.
pub const AGGREGATES: Version = Version(1, 1);

const MIN: Version = Version(1, 0);
const MAX: Version = Version(1, 39);

pub fn microversions() -> Microversions {
    Microversions { service_type: "placement", legacy_header: None, min: MIN, max: MAX, default: MIN }
}

/// `GET /`: readable by anyone, so that clients can negotiate before they authenticate.
pub fn root() -> Route<Placement> {
    Route::get("/", home).public("clients read versions before they have a token").summary("Versions")
}

/// A route that answers `GET` with JSON, to those who take JSON.
pub fn read<F, Fut>(path: &'static str, handler: F) -> Route<Placement>
where
    F: Fn(Arc<Placement>, Call) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Reply> + Send + 'static,
{
    Route::get(path, move |svc, call: Call| {
        let answer = fault::accepts_json(&call).map(|()| handler(svc, call));
        async move { answer?.await }
    })
}

async fn home(_: Arc<Placement>, call: Call) -> Reply {
    let document = json!({"versions": [{
        "id": format!("v{MIN}"), "max_version": MAX.to_string(), "min_version": MIN.to_string(), "status": "CURRENT",
        "links": [{"rel": "self", "href": ""}],
    }]});
    Ok(fresh(&call, Response::ok(document), clock::now_us()))
}

/// Adds `Last-Modified` (`modified`, microseconds since 1970) and `Cache-Control` where the version has them.
pub fn fresh(call: &Call, response: Response, modified: i64) -> Response {
    if call.version < LAST_MODIFIED {
        return response;
    }
    let stamp = jiff::Timestamp::from_microsecond(modified).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    response
        .header("last-modified", stamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .header("cache-control", "no-cache")
}
