//! One profile of XML signatures, and nothing else of the standard: enveloped, over exclusive canonical XML, by
//! RSA or ECDSA with SHA-2. Pure.
//!
//! ```text
//! verify: the document's only Signature -> the element it stands in -> its canonical bytes -> digest
//!                                        -> SignedInfo's canonical bytes -> a trusted key
//!         gives back those canonical bytes: whoever reads them reads what was signed, wherever in the document
//!         something else lies
//! ```
//! What a signature says of its key is not looked at: the operator has said which keys count.
use super::xml::{DSIG, Element};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bergshamra_c14n::{C14nMode, canonicalize_doc};
use bergshamra_xml::NodeSet;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
        RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
    },
};
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;
use x509_parser::{oid_registry, prelude::FromDer, prelude::X509Certificate};

const EXCLUSIVE: &str = "http://www.w3.org/2001/10/xml-exc-c14n#";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const RSA_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256";
const SHA256: &str = "http://www.w3.org/2001/04/xmlenc#sha256";
const PREFIXES_MAX: usize = 32;

/// What a signature may be made with. SHA-1 is not among it.
const METHODS: [(&str, Kind, &dyn VerificationAlgorithm); 5] = [
    (RSA_SHA256, Kind::Rsa, &RSA_PKCS1_2048_8192_SHA256),
    ("http://www.w3.org/2001/04/xmldsig-more#rsa-sha384", Kind::Rsa, &RSA_PKCS1_2048_8192_SHA384),
    ("http://www.w3.org/2001/04/xmldsig-more#rsa-sha512", Kind::Rsa, &RSA_PKCS1_2048_8192_SHA512),
    ("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256", Kind::P256, &ECDSA_P256_SHA256_FIXED),
    ("http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384", Kind::P384, &ECDSA_P384_SHA384_FIXED),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
}

/// A key that somebody's signatures are checked with.
#[derive(Debug, Clone)]
pub struct PublicKey {
    kind: Kind,
    /// As ring wants it: PKCS#1, or a point.
    bytes: Vec<u8>,
}

impl PublicKey {
    pub fn of_certificate(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "it is no certificate".to_owned())?;
        let key = certificate.public_key();
        let curve = || key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok());
        let bytes = key.subject_public_key.data.to_vec();
        let kind = if key.algorithm.algorithm == oid_registry::OID_PKCS1_RSAENCRYPTION {
            Kind::Rsa
        } else if curve() == Some(oid_registry::OID_EC_P256) {
            Kind::P256
        } else if curve() == Some(oid_registry::OID_NIST_EC_P384) {
            Kind::P384
        } else {
            return Err("its key is neither RSA nor of the curves P-256 and P-384".into());
        };
        Ok(PublicKey { kind, bytes })
    }

    /// Is it this RSA key (PKCS#1)?
    pub fn is_rsa(&self, pkcs1: &[u8]) -> bool {
        self.kind == Kind::Rsa && self.bytes == pkcs1
    }
}

fn digest(method: &str, data: &[u8]) -> Option<Vec<u8>> {
    match method {
        SHA256 => Some(Sha256::digest(data).to_vec()),
        "http://www.w3.org/2001/04/xmldsig-more#sha384" => Some(Sha384::digest(data).to_vec()),
        "http://www.w3.org/2001/04/xmlenc#sha512" => Some(Sha512::digest(data).to_vec()),
        _ => None,
    }
}

/// The canonical bytes of an element, perhaps without one of those in it.
fn canonical(of: Element<'_, '_>, without: Option<Element<'_, '_>>, prefixes: &[String]) -> Result<Vec<u8>, String> {
    let mut nodes = NodeSet::tree_without_comments(of.id, of.doc);
    let mut gone: Vec<_> = without.map(|element| element.id).into_iter().collect();
    while let Some(id) = gone.pop() {
        nodes.remove_id(id);
        gone.extend(of.doc.children_iter(id));
    }
    canonicalize_doc(of.doc, C14nMode::Exclusive, Some(&nodes), prefixes).map_err(|e| e.to_string())
}

/// The prefixes that a canonicalisation keeps though nothing visible uses them.
fn prefixes(of: Element<'_, '_>) -> Result<Vec<String>, String> {
    match of.children().as_slice() {
        [] => Ok(Vec::new()),
        [list] => {
            let list = list.called(EXCLUSIVE, "InclusiveNamespaces")?.attribute("PrefixList").unwrap_or_default();
            let all: Vec<String> = list.split_ascii_whitespace().take(PREFIXES_MAX).map(str::to_owned).collect();
            Ok(all.into_iter().map(|p| if p == "#default" { String::new() } else { p }).collect())
        }
        _ => Err("a canonicalisation has parameters that are not known".into()),
    }
}

fn algorithm<'d>(of: Element<'d, '_>) -> Result<&'d str, String> {
    of.need("Algorithm")
}

/// An element whose algorithm has no parameters.
fn plain<'d>(of: Element<'d, '_>) -> Result<&'d str, String> {
    if of.children().is_empty() { algorithm(of) } else { Err("an algorithm has parameters".into()) }
}

fn base64(of: Element<'_, '_>) -> Result<Vec<u8>, String> {
    let text: String = of.text()?.split_ascii_whitespace().collect();
    STANDARD.decode(text).map_err(|_| "there is no base64 where it belongs".into())
}

/// The children, which must be these in this order, and perhaps one more.
fn exactly<'d, 'x, const N: usize>(
    of: Element<'d, 'x>,
    names: [&str; N],
    last: Option<&str>,
) -> Result<[Element<'d, 'x>; N], String> {
    let mut children = of.children();
    if let (true, Some(last)) = (children.len() == N + 1, last) {
        children.pop().map(|child| child.called(DSIG, last)).transpose()?;
    }
    let found: [Element<'d, 'x>; N] =
        children.try_into().map_err(|_| "a signature has parts too many or too few".to_owned())?;
    for (child, name) in found.iter().zip(names) {
        child.called(DSIG, name)?;
    }
    Ok(found)
}

/// An id by which only this element can be meant, whatever a reader takes for the name of ids.
fn check_id(of: Element<'_, '_>, id: &str) -> Result<(), String> {
    let root = Element::root(of.doc)?;
    let is_id = |a: &&uppsala::Attribute<'_>| a.name.local_name.eq_ignore_ascii_case("id") && a.value == id;
    let everything = root.everything();
    let count = everything.iter().filter_map(|e| e.doc.element(e.id)).flat_map(|e| e.attributes.iter().filter(is_id));
    if id.is_empty() || count.count() != 1 { Err("its id is not its own".into()) } else { Ok(()) }
}

/// What was signed: the element in the document, and its canonical text without the signature.
#[derive(Clone)]
pub struct Signed<'d, 'x> {
    pub element: Element<'d, 'x>,
    pub text: String,
}

/// Checks the only signature of the document.
pub fn verify<'d, 'x>(root: Element<'d, 'x>, keys: &[PublicKey]) -> Result<Signed<'d, 'x>, String> {
    let everything = root.everything();
    let signatures: Vec<_> = everything.into_iter().filter(|e| e.is(DSIG, "Signature")).collect();
    let [signature] = signatures.as_slice() else {
        return Err(format!("it has {} signatures, and not one", signatures.len()));
    };
    let element = signature.parent().ok_or("the signature is in nothing")?;
    let [info, value] = exactly(*signature, ["SignedInfo", "SignatureValue"], Some("KeyInfo"))?;
    let [canonicalisation, method, reference] =
        exactly(info, ["CanonicalizationMethod", "SignatureMethod", "Reference"], None)?;
    let [transforms, digest_method, digest_value] =
        exactly(reference, ["Transforms", "DigestMethod", "DigestValue"], None)?;
    let [enveloped, exclusive] = exactly(transforms, ["Transform", "Transform"], None)?;

    let id = element.need("ID")?;
    check_id(element, id)?;
    if reference.need("URI")?.strip_prefix('#') != Some(id) {
        return Err("the signature is of something else than it stands in".into());
    }
    if plain(enveloped)? != ENVELOPED || algorithm(exclusive)? != EXCLUSIVE || algorithm(canonicalisation)? != EXCLUSIVE
    {
        return Err("it is signed over another form than exclusive canonical XML".into());
    }
    let bytes = canonical(element, Some(*signature), &prefixes(exclusive)?)?;
    let computed = digest(plain(digest_method)?, &bytes).ok_or("its digest is none that is taken")?;
    if !bool::from(computed.as_slice().ct_eq(&base64(digest_value)?)) {
        return Err("it is not what was signed".into());
    }
    let method = plain(method)?;
    let (_, kind, check) =
        METHODS.iter().find(|(name, _, _)| *name == method).ok_or("its signature is by a method that is not taken")?;
    let (signed, value) = (canonical(info, None, &prefixes(canonicalisation)?)?, base64(value)?);
    let mut fitting = keys.iter().filter(|key| key.kind == *kind);
    if !fitting.any(|key| UnparsedPublicKey::new(*check, &key.bytes).verify(&signed, &value).is_ok()) {
        return Err("no key that is trusted has signed it".into());
    }
    let text = String::from_utf8(bytes).map_err(|_| "its canonical form is no text".to_owned())?;
    Ok(Signed { element, text })
}

/// The `Signature` for an element: of `text` (the element without it), which has the ID `id`.
pub fn sign(text: &str, id: &str, pair: &RsaKeyPair, certificate: &[u8]) -> Result<String, String> {
    let doc = super::xml::read(text)?;
    let bytes = canonical(Element::root(&doc)?, None, &["xs".to_owned()])?;
    let digest = STANDARD.encode(Sha256::digest(&bytes));
    let info = format!(
        "<ds:SignedInfo xmlns:ds=\"{DSIG}\"><ds:CanonicalizationMethod Algorithm=\"{EXCLUSIVE}\"></ds:CanonicalizationMethod>\
         <ds:SignatureMethod Algorithm=\"{RSA_SHA256}\"></ds:SignatureMethod><ds:Reference URI=\"#{id}\"><ds:Transforms>\
         <ds:Transform Algorithm=\"{ENVELOPED}\"></ds:Transform><ds:Transform Algorithm=\"{EXCLUSIVE}\">\
         <ec:InclusiveNamespaces xmlns:ec=\"{EXCLUSIVE}\" PrefixList=\"xs\"></ec:InclusiveNamespaces></ds:Transform></ds:Transforms>\
         <ds:DigestMethod Algorithm=\"{SHA256}\"></ds:DigestMethod><ds:DigestValue>{digest}</ds:DigestValue>\
         </ds:Reference></ds:SignedInfo>"
    );
    let doc = super::xml::read(&info)?;
    let signed = canonical(Element::root(&doc)?, None, &[])?;
    let mut value = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &signed, &mut value).map_err(|_| "it could not be signed")?;
    let (value, certificate) = (STANDARD.encode(value), STANDARD.encode(certificate));
    Ok(format!(
        "<ds:Signature xmlns:ds=\"{DSIG}\">{info}<ds:SignatureValue>{value}</ds:SignatureValue><ds:KeyInfo><ds:X509Data>\
         <ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></ds:Signature>"
    ))
}
