//! What a client certificate says of its holder, and whether that makes it the certificate of a user.
use crate::{
    Identity,
    federation::mapping::engine::{Assertion, DomainName, MappedUser, apply},
    tables::{Mapping, Project, User},
};
use pilvi_kit::Fault;
use x509_parser::{
    objects::{oid_registry, oid2abbrev},
    prelude::{FromDer, X509Certificate, X509Name},
};

/// Subject and issuer as attributes: `SSL_CLIENT_SUBJECT_DN_CN`, `SSL_CLIENT_ISSUER_DN_O`, ...
#[derive(Debug)]
pub(super) struct Subject(Assertion);

fn add(out: &mut Assertion, prefix: &str, name: &X509Name<'_>) {
    for attribute in name.iter_attributes() {
        let kind = attribute.attr_type();
        let short = match kind.to_id_string().as_str() {
            // Names that other programs give to these kinds.
            "1.2.840.113549.1.9.1" => "EMAILADDRESS".to_owned(),
            "0.9.2342.19200300.100.1.1" => "UID".to_owned(),
            "0.9.2342.19200300.100.1.25" => "DC".to_owned(),
            other => oid2abbrev(kind, oid_registry()).map_or_else(|_| other.to_owned(), |n| n.to_ascii_uppercase()),
        };
        if let Ok(value) = attribute.as_str() {
            out.0.entry(format!("{prefix}_{short}")).or_default().push(value.to_owned());
        }
    }
}

impl Subject {
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let mut out = Assertion::default();
        add(&mut out, "SSL_CLIENT_SUBJECT_DN", certificate.subject());
        add(&mut out, "SSL_CLIENT_ISSUER_DN", certificate.issuer());
        Some(Subject(out))
    }
}

/// Is he the one whom the mapping makes of the certificate? Whatever it names must agree, and it must name
/// something that is his alone.
fn same(mapped: &MappedUser, user: &User, domain: &Project) -> Result<(), String> {
    let email = user.extra.get("email").and_then(serde_json::Value::as_str);
    let agrees = |wanted: &Option<String>, have: Option<&str>| wanted.as_deref().is_none_or(|w| have == Some(w));
    if mapped.id.is_none() && mapped.name.is_none() && mapped.email.is_none() {
        return Err("the mapping names neither id nor name nor address of a user".to_owned());
    }
    let domain_agrees = match &mapped.domain {
        None => true,
        Some(DomainName::Id(id)) => *id == domain.id,
        Some(DomainName::Name(name)) => *name == domain.name,
    };
    let all = [
        ("id", agrees(&mapped.id, Some(&user.id))),
        ("name", agrees(&mapped.name, Some(&user.name))),
        ("email", agrees(&mapped.email, email)),
        ("domain", domain_agrees),
    ];
    match all.iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(format!("the certificate is of somebody with another {what}")),
        None => Ok(()),
    }
}

impl Identity {
    /// Why the certificate is not the user's, or that it is.
    pub(super) async fn check_subject(&self, subject: &Subject, user: &User) -> Result<Result<(), String>, Fault> {
        let id = &self.config.federation.oauth2_mapping;
        let Some(mapping) = self.store.get::<Mapping>(id).await? else {
            return Ok(Err(format!("there is no mapping {id}")));
        };
        let Some(domain) = self.directory.domain(&user.domain_id).await? else {
            return Ok(Err("the user's domain is gone".to_owned()));
        };
        Ok(apply(&mapping, &subject.0).and_then(|mapped| same(&mapped.user, user, &domain)))
    }
}
