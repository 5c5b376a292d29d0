//! The first start: a domain, the default roles, an administrator; and at every start: the catalogue.
//!
//! All of it may run again and again, also at once in several schedulers: what is there is left alone,
//! but for addresses of endpoints, which follow the configuration.
use crate::{
    Identity, catalog,
    directory::Area,
    fault, password, role,
    tables::{Actor, AssignmentKey, Endpoint, Extra, Inference, Place, Project, Region, Role, Service, User},
};
use pilvi_kit::{Fault, clock, id};
use pilvi_store::Tx;
use serde_json::json;

/// Id of the domain that clients mean when they name none.
pub(crate) const DEFAULT_DOMAIN: &str = "default";
/// Each implies the next.
const CHAIN: [&str; 4] = ["admin", "manager", "member", "reader"];
const SERVICE_ROLE: &str = "service";
const INTERFACES: [&str; 3] = ["public", "internal", "admin"];

/// A text that must not be logged.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One service and its address, the same for all three interfaces.
#[derive(Debug, Clone)]
pub struct EndpointSpec {
    /// `compute`
    pub service_type: String,
    /// `nova`
    pub name: String,
    /// May hold `$(project_id)s`.
    pub url: String,
}

#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Of the administrator, if he is made now; `None`: one is generated.
    pub admin_password: Option<Secret>,
    pub region: String,
    pub endpoints: Vec<EndpointSpec>,
}

/// What there is after a start.
#[derive(Debug, Clone)]
pub struct Bootstrapped {
    /// Of the administrator, only when this start made him.
    pub admin_password: Option<Secret>,
    pub admin_user_id: String,
    pub admin_project_id: String,
    pub domain_id: String,
}

impl Identity {
    /// Makes what is missing. Must run before the first request is answered.
    pub async fn bootstrap(&self, wanted: Bootstrap) -> Result<Bootstrapped, Fault> {
        for endpoint in &wanted.endpoints {
            catalog::check_url(&endpoint.url)?;
        }
        let known = self.directory.user_named(DEFAULT_DOMAIN, "admin").await?;
        let password = wanted.admin_password.unwrap_or_else(|| Secret(password::generate()));
        let new = match known {
            Some(_) => None,
            None => Some(User {
                id: id::hex(),
                name: "admin".into(),
                domain_id: DEFAULT_DOMAIN.into(),
                default_project_id: None,
                enabled: true,
                passwords: vec![self.password_entry(self.hasher.hash(password.reveal()).await?, &own_choice(), false)],
                options: Default::default(),
                federated: Vec::new(),
                shadow: false,
                extra: Default::default(),
                created_us: clock::now_us(),
                ..User::default()
            }),
        };
        let (region, endpoints) = (wanted.region, wanted.endpoints);
        let (made, done) = self
            .write(Area::People, move |tx| {
                let (new, region, endpoints) = (new.clone(), region.clone(), endpoints.clone());
                Box::pin(async move {
                    let done = people_in(tx, new).await?;
                    catalog_in(tx, &region, &endpoints).await?;
                    Ok(done)
                })
            })
            .await?;
        self.directory.changed(Area::Roles);
        self.directory.changed(Area::Catalog);
        Ok(Bootstrapped { admin_password: made.then_some(password), ..done })
    }
}

/// The operator chose the password himself, so it need not be changed before the first use.
fn own_choice() -> Extra {
    [("ignore_change_password_upon_first_use".to_owned(), json!(true))].into_iter().collect()
}

async fn people_in(tx: &mut Tx, new: Option<User>) -> Result<(bool, Bootstrapped), Fault> {
    place_in(tx, DEFAULT_DOMAIN, "Default", None).await?;
    let mut roles = Vec::new();
    for name in CHAIN {
        roles.push(role_in(tx, name).await?);
    }
    role_in(tx, SERVICE_ROLE).await?;
    for pair in roles.windows(2) {
        let rule = Inference::new(&pair[0], &pair[1]);
        if tx.get::<Inference>(&rule.id).await?.is_none() {
            tx.insert(&rule).await?;
        }
    }
    let project = place_in(tx, "", "admin", Some(DEFAULT_DOMAIN)).await?;
    let found = tx.list::<User>(User::named(DEFAULT_DOMAIN, "admin")).await?.into_iter().next();
    let (user, made) = match (found, new) {
        (Some(found), _) => (found.record.id, false),
        (None, Some(new)) => (tx.insert(&new).await?.record.id, true),
        // Deleted since we looked: the next start makes him again.
        (None, None) => return Err(fault::missing("user", "admin")),
    };
    let places = [Place::Project(project.clone()), Place::Domain(DEFAULT_DOMAIN.into()), Place::System];
    for target in places {
        let key = AssignmentKey { actor: Actor::User(user.clone()), target, inherited: false };
        if made {
            role::grants::grant_in(tx, &key, &roles[0]).await?;
        }
    }
    Ok((
        made,
        Bootstrapped {
            admin_password: None,
            admin_user_id: user,
            admin_project_id: project,
            domain_id: DEFAULT_DOMAIN.into(),
        },
    ))
}

/// The id of a project (or, without `domain`, of a domain), made if it is missing.
async fn place_in(tx: &mut Tx, wanted_id: &str, name: &str, domain: Option<&str>) -> Result<String, Fault> {
    let known = match domain {
        Some(domain) => tx.list::<Project>(Project::named(domain, name)).await?.into_iter().next(),
        None => tx.get::<Project>(wanted_id).await?,
    };
    if let Some(known) = known {
        return Ok(known.record.id);
    }
    let project = Project {
        id: if wanted_id.is_empty() { id::hex() } else { wanted_id.to_owned() },
        name: name.into(),
        domain_id: domain.map(str::to_owned),
        parent_id: domain.map(str::to_owned),
        description: if domain.is_some() {
            "Bootstrap project for initializing the cloud.".into()
        } else {
            "The default domain".into()
        },
        enabled: true,
        is_domain: domain.is_none(),
        tags: Vec::new(),
        options: Default::default(),
        extra: Default::default(),
    };
    Ok(tx.insert(&project).await?.record.id)
}

async fn role_in(tx: &mut Tx, name: &str) -> Result<String, Fault> {
    if let Some(known) = tx.list::<Role>(Role::global_named(name)).await?.into_iter().next() {
        return Ok(known.record.id);
    }
    let mut options = serde_json::Map::new();
    options.insert("immutable".into(), json!(true));
    let role = Role {
        id: id::hex(),
        name: name.into(),
        domain_id: None,
        description: None,
        options,
        extra: Default::default(),
    };
    Ok(tx.insert(&role).await?.record.id)
}

async fn catalog_in(tx: &mut Tx, region: &str, endpoints: &[EndpointSpec]) -> Result<(), Fault> {
    if tx.get::<Region>(region).await?.is_none() {
        tx.insert(&Region {
            id: region.into(),
            description: String::new(),
            parent_region_id: None,
            extra: Default::default(),
        })
        .await?;
    }
    for wanted in endpoints {
        let known = tx.list::<Service>(Service::of_type(&wanted.service_type)).await?.into_iter().next();
        let service = match known {
            Some(known) => known.record.id,
            None => {
                let service = Service {
                    id: id::hex(),
                    kind: wanted.service_type.clone(),
                    name: Some(wanted.name.clone()),
                    description: None,
                    enabled: true,
                    extra: Default::default(),
                };
                tx.insert(&service).await?.record.id
            }
        };
        for interface in INTERFACES {
            endpoint_in(tx, &service, region, interface, &wanted.url).await?;
        }
    }
    Ok(())
}

async fn endpoint_in(tx: &mut Tx, service: &str, region: &str, interface: &str, url: &str) -> Result<(), Fault> {
    let all = tx.list::<Endpoint>(Endpoint::of_service(service)).await?;
    let known = all.into_iter().find(|e| e.interface == interface && e.region_id.as_deref() == Some(region));
    match known {
        Some(known) if known.url == url => {}
        Some(mut known) => {
            url.clone_into(&mut known.record.url);
            tx.update(&known).await?;
        }
        None => {
            let endpoint = Endpoint {
                id: id::hex(),
                service_id: service.into(),
                region_id: Some(region.into()),
                interface: interface.into(),
                url: url.into(),
                enabled: true,
                extra: Default::default(),
            };
            tx.insert(&endpoint).await?;
        }
    }
    Ok(())
}
