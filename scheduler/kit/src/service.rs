//! A service, and what mounting one checks.
use crate::{
    auth::Authenticator,
    fault::FaultShape,
    navigator::Documented,
    notify::EventStyle,
    policy::{Enforcer, PolicyError, RuleDefault},
    route::{Asked, Matcher, Route},
    version::Microversions,
};
use std::{collections::HashSet, sync::Arc};

/// Everything the kit needs to know of a service.
pub struct Service<S> {
    /// `compute`: in logs, metrics and the names of policy files.
    pub name: &'static str,
    /// `/compute`: where its routes begin.
    pub prefix: &'static str,
    pub versions: Option<Microversions>,
    pub fault: FaultShape,
    pub rules: Vec<RuleDefault>,
    pub routes: Vec<Route<S>>,
    /// What the original documents.
    pub documented: Documented,
    /// How its events are called.
    pub events: EventStyle,
}

/// A service that passed the checks, ready to answer.
pub struct Mounted {
    pub name: &'static str,
    pub prefix: &'static str,
    pub fault: FaultShape,
    pub versions: Option<Microversions>,
    pub rules: Vec<RuleDefault>,
    pub documented: Documented,
    pub events: EventStyle,
    /// Addresses of the server's root that it answers too, as `/PREFIX/..` of its own routes: what others have fixed.
    pub(crate) roots: &'static [&'static str],
    /// An address with an empty segment is another address, and one without the method is none.
    pub(crate) literal: bool,
    pub(crate) enforcer: Arc<Enforcer>,
    pub(crate) matcher: Matcher,
    pub(crate) routes: Vec<Route<()>>,
    pub(crate) authenticator: Authenticator,
}

impl Mounted {
    /// Everything that it answers.
    pub fn routes(&self) -> &[Route<()>] {
        &self.routes
    }
    /// Answers these addresses of the server's root too, not only below its own prefix.
    pub fn also_at(self, roots: &'static [&'static str]) -> Self {
        Mounted { roots, ..self }
    }
    /// Takes addresses to the letter, as some originals do: 404 for one with an empty segment (`/volumes/`), which is an id
    /// that a client forgot, and for a method that an address does not have.
    pub fn literally(self) -> Self {
        Mounted { literal: true, ..self }
    }
    /// The path of a route of this service that an address of the server means.
    pub(crate) fn below<'p>(&self, path: &'p str) -> Option<&'p str> {
        below(self.prefix, self.roots, path)
    }
    /// The rules in force.
    pub fn enforcer(&self) -> &Enforcer {
        &self.enforcer
    }
}

fn below<'p>(prefix: &str, roots: &[&str], path: &'p str) -> Option<&'p str> {
    let whole = |rest: &str| rest.is_empty() || rest.starts_with('/');
    if let Some(rest) = path.strip_prefix(prefix).filter(|rest| whole(rest)) {
        return Some(if rest.is_empty() { "/" } else { rest });
    }
    roots.iter().any(|root| path.strip_prefix(root).is_some_and(whole)).then_some(path)
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mounted({} at {}, {} routes)", self.name, self.prefix, self.routes.len())
    }
}

/// Why a service cannot be mounted: always a mistake of ours or of the operator's policy file.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("{service}: route {route} names no rule")]
    NoRule { service: &'static str, route: String },
    #[error("{service}: route {route} names the unknown rule {rule}")]
    UnknownRule { service: &'static str, route: String, rule: &'static str },
    #[error("{service}: route {route} is listed twice")]
    Twice { service: &'static str, route: String },
    #[error("{service}: the schema of {route}: {error}")]
    Schema { service: &'static str, route: String, error: String },
    #[error("{service}: {error}")]
    Policy { service: &'static str, error: PolicyError },
}

/// What all services share at run time.
#[derive(Debug, Clone)]
pub struct Mounting {
    pub authenticator: Authenticator,
    /// The operator's policy file of this service.
    pub policy_file: Option<String>,
}

impl<S: Send + Sync + 'static> Service<S> {
    /// Checks the tables and binds them to the service's state.
    pub fn mount(self, state: Arc<S>, with: Mounting) -> Result<Mounted, MountError> {
        let service = self.name;
        let enforcer = Enforcer::new(&self.rules, with.policy_file.as_deref())
            .map_err(|error| MountError::Policy { service, error })?;
        let mut seen = HashSet::new();
        for route in &self.routes {
            let text = format!("{route:?}");
            if route.rule.is_empty() {
                return Err(MountError::NoRule { service, route: text });
            }
            if matches!(route.asked, Asked::Before | Asked::ByHandler) && !enforcer.knows(route.rule) {
                return Err(MountError::UnknownRule { service, route: text, rule: route.rule });
            }
            if let Some((_, rule)) = route.actions.iter().find(|(_, rule)| !enforcer.knows(rule)) {
                return Err(MountError::UnknownRule { service, route: text, rule });
            }
            if let Some(schema) = route.schema
                && cfg!(debug_assertions)
            {
                schema.compile().map_err(|error| MountError::Schema { service, route: text.clone(), error })?;
            }
            if !seen.insert((text.clone(), route.versions)) {
                return Err(MountError::Twice { service, route: text });
            }
        }
        let matcher = Matcher::new(&self.routes);
        let routes = self.routes.into_iter().map(|route| bind(route, &state)).collect();
        Ok(Mounted {
            name: self.name,
            prefix: self.prefix,
            fault: self.fault,
            versions: self.versions,
            rules: self.rules,
            documented: self.documented,
            events: self.events,
            roots: &[],
            literal: false,
            enforcer: Arc::new(enforcer),
            matcher,
            routes,
            authenticator: with.authenticator,
        })
    }
}

/// Forgets the type of the state by capturing it.
fn bind<S: Send + Sync + 'static>(route: Route<S>, state: &Arc<S>) -> Route<()> {
    let (handler, state) = (route.handler, state.clone());
    Route {
        method: route.method,
        path: route.path,
        rule: route.rule,
        asked: route.asked,
        versions: route.versions,
        schema: route.schema,
        limit: route.limit,
        bytes: route.bytes,
        json_only: route.json_only,
        body_type: route.body_type,
        actions: route.actions,
        event: route.event,
        summary: route.summary,
        handler: Arc::new(move |_nothing, call| handler(state.clone(), call)),
    }
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn addresses_are_below_a_prefix_or_a_root_as_whole_segments() {
        let at = |path| below("/identity", &["/Fixed.sso"], path);
        assert_eq!(at("/identity"), Some("/"));
        assert_eq!(at("/identity/v3"), Some("/v3"));
        assert_eq!(at("/Fixed.sso/x"), Some("/Fixed.sso/x"));
        assert_eq!(at("/identity/Fixed.sso/x"), Some("/Fixed.sso/x"));
        assert_eq!((at("/identity3"), at("/Fixed.ssox"), at("/")), (None, None, None));
    }
}
