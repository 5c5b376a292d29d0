//! Vouching for our users at other clouds: `POST /v3/auth/OS-FEDERATION/saml2[/ecp]`, as Keystone does it.
//!
//! ```text
//! a token for a project + a service provider -> who he is, where, with which roles and groups
//!                                            -> a signed assertion in a response [in a SOAP envelope]
//! ```
//! The client carries it to the service provider's `sp_url`, and gets a token there at its `auth_url`.
use super::{
    Saml,
    signature::sign,
    xml::{ASSERTION, ECP, PROTOCOL, SOAP, escaped},
};
use crate::{
    Identity, fault,
    federation::service_provider,
    tables::ServiceProvider,
    token::resolve::{Resolved, ResolvedPlace},
};
use pilvi_kit::{Call, Fault, Reply, Response, Route, Schema, clock, id};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

const XML: &str = "text/xml";

static WANTED: LazyLock<Schema> = LazyLock::new(|| {
    Schema::new(|| {
        let text = json!({"type": "string", "minLength": 1, "maxLength": 4096});
        let named = json!({"type": "object", "required": ["id"], "properties": {"id": text}});
        let identity = json!({"type": "object", "required": ["token"], "properties": {"token": named,
            "methods": {"type": "array", "items": {"type": "string"}}}});
        let scope =
            json!({"type": "object", "required": ["service_provider"], "properties": {"service_provider": named}});
        let auth = json!({"type": "object", "required": ["identity", "scope"],
            "properties": {"identity": identity, "scope": scope}});
        json!({"type": "object", "required": ["auth"], "properties": {"auth": auth}})
    })
});

pub(super) fn routes() -> Vec<Route<Identity>> {
    const WHY: &str = "the token in the body is the proof";
    vec![
        Route::post("/v3/auth/OS-FEDERATION/saml2", alone)
            .public(WHY)
            .schema(&WANTED)
            .summary("Get a SAML 2 assertion for another cloud"),
        Route::post("/v3/auth/OS-FEDERATION/saml2/ecp", in_envelope)
            .public(WHY)
            .schema(&WANTED)
            .summary("Get a SAML 2 assertion for another cloud, in an envelope"),
    ]
}

/// What is said of somebody.
#[derive(Debug)]
pub(super) struct Saying {
    pub user: String,
    pub user_domain: String,
    pub roles: Vec<String>,
    pub project: String,
    pub project_domain: String,
    /// As `JSON:{"name", "domain"}`.
    pub groups: Vec<String>,
}

async fn alone(svc: Arc<Identity>, call: Call) -> Reply {
    let (cloud, response) = svc.assertion(&call.body).await?;
    Ok(answer(&cloud, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{response}")))
}

async fn in_envelope(svc: Arc<Identity>, call: Call) -> Reply {
    let (cloud, response) = svc.assertion(&call.body).await?;
    let state = escaped(&format!("{}{}", cloud.relay_state_prefix, id::hex()));
    let envelope = format!(
        "<soap:Envelope xmlns:soap=\"{SOAP}\"><soap:Header><ecp:RelayState xmlns:ecp=\"{ECP}\" \
         soap:actor=\"http://schemas.xmlsoap.org/soap/actor/next\" soap:mustUnderstand=\"1\">{state}</ecp:RelayState>\
         </soap:Header><soap:Body>{response}</soap:Body></soap:Envelope>"
    );
    Ok(answer(&cloud, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{envelope}")))
}

fn answer(cloud: &ServiceProvider, xml: String) -> Response {
    Response::text(200, XML, xml)
        .header("x-sp-url", cloud.sp_url.clone())
        .header("x-auth-url", cloud.auth_url.clone())
        .header("cache-control", "no-store")
}

impl Identity {
    /// The service provider that a request names, and what it is to be shown.
    async fn assertion(&self, body: &Value) -> Result<(ServiceProvider, String), Fault> {
        let saml = self.saml()?;
        let id = body["auth"]["scope"]["service_provider"]["id"].as_str().unwrap_or_default();
        let found = self.store.get::<ServiceProvider>(id).await?.ok_or_else(|| service_provider::missing(id))?;
        if !found.enabled {
            return Err(Fault::forbidden(format!("Service Provider {id} is disabled")));
        }
        let shown = self.undelegated(&body["auth"]["identity"]["token"]).await?;
        let saying = self.saying(&shown).await?;
        let response = saml.response(&found.sp_url, &saying, clock::now_us()).map_err(Fault::internal)?;
        Ok((found.record, response))
    }

    async fn saying(&self, shown: &Resolved) -> Result<Saying, Fault> {
        let ResolvedPlace::Project { project, domain } = &shown.place else {
            return Err(Fault::forbidden(
                "You are not authorized to perform the requested action: Use a project scoped token when attempting to \
                 create a SAML assertion.",
            ));
        };
        let mut groups = Vec::new();
        for group_id in self.directory.group_ids(&shown.user.id).await? {
            let Some(group) = self.directory.group(&group_id).await? else { continue };
            let domain = self.directory.domain(&group.domain_id).await?;
            let domain = domain.ok_or_else(|| fault::missing("domain", &group.domain_id))?;
            groups.push(format!("JSON:{}", json!({"name": group.name, "domain": {"name": domain.name}})));
        }
        Ok(Saying {
            user: shown.user.name.clone(),
            user_domain: shown.user_domain.name.clone(),
            roles: shown.roles.iter().map(|(_, name)| name.clone()).collect(),
            project: project.name.clone(),
            project_domain: domain.name.clone(),
            groups,
        })
    }
}

impl Saml {
    /// A response with a signed assertion, for the reader at `recipient`.
    pub(super) fn response(&self, recipient: &str, saying: &Saying, now_us: i64) -> Result<String, String> {
        let (issuer, to) = (escaped(&self.config.entity_id()), escaped(recipient));
        let now = clock::seconds_z(now_us);
        let until = clock::micros_z(now_us + i64::from(self.config.assertion_seconds) * 1_000_000);
        let (own, around, session) = (format!("_{}", id::hex()), format!("_{}", id::hex()), id::hex());
        let user = escaped(&saying.user);
        let head = format!(
            "<saml:Assertion xmlns:saml=\"{ASSERTION}\" xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" \
             xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" ID=\"{own}\" IssueInstant=\"{now}\" Version=\"2.0\">\
             <saml:Issuer Format=\"urn:oasis:names:tc:SAML:2.0:nameid-format:entity\">{issuer}</saml:Issuer>"
        );
        let mut rest = format!(
            "<saml:Subject><saml:NameID>{user}</saml:NameID>\
             <saml:SubjectConfirmation Method=\"urn:oasis:names:tc:SAML:2.0:cm:bearer\">\
             <saml:SubjectConfirmationData NotOnOrAfter=\"{until}\" Recipient=\"{to}\"></saml:SubjectConfirmationData>\
             </saml:SubjectConfirmation></saml:Subject>\
             <saml:AuthnStatement AuthnInstant=\"{now}\" SessionIndex=\"{session}\" SessionNotOnOrAfter=\"{until}\">\
             <saml:AuthnContext>\
             <saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef>\
             <saml:AuthenticatingAuthority>{issuer}</saml:AuthenticatingAuthority></saml:AuthnContext>\
             </saml:AuthnStatement><saml:AttributeStatement>"
        );
        let one = std::slice::from_ref;
        rest += &attribute("openstack_user", one(&saying.user));
        rest += &attribute("openstack_roles", &saying.roles);
        rest += &attribute("openstack_project", one(&saying.project));
        rest += &attribute("openstack_project_domain", one(&saying.project_domain));
        rest += &attribute("openstack_user_domain", one(&saying.user_domain));
        if !saying.groups.is_empty() {
            rest += &attribute("openstack_groups", &saying.groups);
        }
        rest += "</saml:AttributeStatement></saml:Assertion>";
        let ring = self.keys.ring();
        let key = ring.first().ok_or("there is no key to sign with")?;
        let signature = sign(&format!("{head}{rest}"), &own, key.pair(), key.certificate())?;
        Ok(format!(
            "<samlp:Response xmlns:samlp=\"{PROTOCOL}\" Destination=\"{to}\" ID=\"{around}\" IssueInstant=\"{now}\" \
             Version=\"2.0\"><saml:Issuer xmlns:saml=\"{ASSERTION}\" \
             Format=\"urn:oasis:names:tc:SAML:2.0:nameid-format:entity\">{issuer}</saml:Issuer><samlp:Status>\
             <samlp:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:Success\"></samlp:StatusCode></samlp:Status>\
             {head}{signature}{rest}</samlp:Response>"
        ))
    }
}

fn attribute(name: &str, values: &[String]) -> String {
    let value =
        |v: &String| format!("<saml:AttributeValue xsi:type=\"xs:string\">{}</saml:AttributeValue>", escaped(v));
    let values: String = values.iter().map(value).collect();
    format!("<saml:Attribute Name=\"{name}\">{values}</saml:Attribute>")
}
