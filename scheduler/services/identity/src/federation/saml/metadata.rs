//! Metadata: what this cloud is to other parties of SAML, and the keys of those who told the operator theirs.
use super::xml::{DSIG, Element, METADATA, PROTOCOL, escaped, read_file};
use crate::Identity;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use pilvi_kit::{Call, Reply, Response, Route};
use std::sync::Arc;

pub(super) fn routes() -> Vec<Route<Identity>> {
    const WHY: &str = "metadata are public";
    vec![
        Route::get("/v3/OS-FEDERATION/saml2/metadata", of_provider)
            .public(WHY)
            .summary("Show the SAML 2 metadata of this cloud as identity provider"),
        Route::get("/Shibboleth.sso/Metadata", of_reader)
            .public(WHY)
            .summary("Show the SAML 2 metadata of this cloud as service provider"),
    ]
}

async fn of_provider(svc: Arc<Identity>, _: Call) -> Reply {
    let saml = svc.saml()?;
    let (entity, url) = (escaped(&saml.config.entity_id()), escaped(&saml.config.url));
    let key = |key: &super::SamlKey| {
        format!(
            "<md:KeyDescriptor use=\"signing\"><ds:KeyInfo xmlns:ds=\"{DSIG}\"><ds:X509Data><ds:X509Certificate>{}\
             </ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>",
            STANDARD.encode(key.certificate())
        )
    };
    let keys: String = saml.keys.ring().iter().map(key).collect();
    // Nobody is signed on there: the schema wants an address, and Keystone gives the like.
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<md:EntityDescriptor xmlns:md=\"{METADATA}\" entityID=\"{entity}\">\
         <md:IDPSSODescriptor protocolSupportEnumeration=\"{PROTOCOL}\">{keys}<md:SingleSignOnService \
         Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:URI\" Location=\"{url}/identity/v3/OS-FEDERATION/saml2/sso\"/>\
         </md:IDPSSODescriptor></md:EntityDescriptor>\n"
    );
    Ok(Response::text(200, "text/xml", xml))
}

async fn of_reader(svc: Arc<Identity>, _: Call) -> Reply {
    let saml = svc.saml()?;
    let (entity, url) = (escaped(&saml.config.sp_entity_id()), escaped(&saml.config.url));
    let xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<md:EntityDescriptor xmlns:md=\"{METADATA}\" entityID=\"{entity}\">\
         <md:SPSSODescriptor AuthnRequestsSigned=\"false\" WantAssertionsSigned=\"true\" \
         protocolSupportEnumeration=\"{PROTOCOL}\"><md:AssertionConsumerService index=\"1\" isDefault=\"true\" \
         Binding=\"urn:oasis:names:tc:SAML:2.0:bindings:PAOS\" Location=\"{url}{}\"/></md:SPSSODescriptor>\
         </md:EntityDescriptor>\n",
        super::consumer::PATH
    );
    Ok(Response::text(200, "application/samlmetadata+xml", xml))
}

/// The certificates (DER) that an identity provider signs with, as its metadata have them.
pub fn certificates_of_metadata(text: &str, entity_id: &str) -> Result<Vec<Vec<u8>>, String> {
    let doc = read_file(text)?;
    let root = Element::root(&doc)?;
    let named = |e: &Element<'_, '_>| e.is(METADATA, "EntityDescriptor") && e.attribute("entityID") == Some(entity_id);
    let entity = root.everything().into_iter().find(named).ok_or_else(|| format!("it says nothing of {entity_id}"))?;
    let mut out = Vec::new();
    for role in entity.all(METADATA, "IDPSSODescriptor") {
        let signing = |k: &Element<'_, '_>| k.attribute("use").is_none_or(|u| u == "signing");
        for key in role.all(METADATA, "KeyDescriptor").into_iter().filter(signing) {
            for found in key.everything().into_iter().filter(|e| e.is(DSIG, "X509Certificate")) {
                let text: String = found.text()?.split_ascii_whitespace().collect();
                out.push(STANDARD.decode(text).map_err(|_| "a certificate in it is no base64".to_owned())?);
            }
        }
    }
    if out.is_empty() { Err(format!("it has no certificate of {entity_id}")) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_give_the_keys_that_sign() {
        let certificate = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, b"\x01\x02");
        let key = |usage: &str| {
            format!(
                "<KeyDescriptor{usage}><i:KeyInfo xmlns:i=\"{DSIG}\"><i:X509Data><i:X509Certificate>\n {certificate}\n</i:X509Certificate></i:X509Data></i:KeyInfo></KeyDescriptor>"
            )
        };
        let xml = format!(
            "<!-- of an operator --><EntitiesDescriptor xmlns=\"urn:oasis:names:tc:SAML:2.0:metadata\"><EntityDescriptor entityID=\"a\">\
             <IDPSSODescriptor>{}{}{}</IDPSSODescriptor></EntityDescriptor><EntityDescriptor entityID=\"b\"/></EntitiesDescriptor>",
            key(" use=\"signing\""),
            key(" use=\"encryption\""),
            key("")
        );
        let read = certificates_of_metadata;
        assert_eq!(read(&xml, "a").unwrap(), vec![vec![1, 2], vec![1, 2]]);
        assert!(read(&xml, "b").is_err() && read(&xml, "c").is_err() && read("<x", "a").is_err());
    }
}
