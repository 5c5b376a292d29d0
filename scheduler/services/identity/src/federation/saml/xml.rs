//! XML from strangers: what is read at all, and how its elements are looked at. Pure.
//!
//! SAML needs elements, attributes and text. Everything else that XML can be (document types, entities, comments,
//! processing instructions, CDATA) is refused before the parser sees it: comments that cut a name in two, and
//! entities that grow, have been the ways into other people's clouds.
use crate::form::BODY_MAX;
use uppsala::{Document, NodeId, NodeKind, Parser};

pub const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
pub const ASSERTION: &str = "urn:oasis:names:tc:SAML:2.0:assertion";
pub const PROTOCOL: &str = "urn:oasis:names:tc:SAML:2.0:protocol";
pub const METADATA: &str = "urn:oasis:names:tc:SAML:2.0:metadata";
pub const SOAP: &str = "http://schemas.xmlsoap.org/soap/envelope/";
pub const ECP: &str = "urn:oasis:names:tc:SAML:2.0:profiles:SSO:ecp";
pub const PAOS: &str = "urn:liberty:paos:2003-08";

/// Elements below each other, tags, attributes of one tag, and declarations of namespaces: the work that a document
/// makes grows with their products.
const DEPTH_MAX: u32 = 64;
const TAGS_MAX: usize = 20_000;
const ATTRIBUTES_MAX: usize = 256;
const NAMESPACES_MAX: usize = 512;

/// Looks at the text alone; what is left is elements, attributes and text.
fn gate(text: &str) -> Result<(), String> {
    if text.len() > BODY_MAX {
        return Err("it is too large".into());
    }
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    if let Some(declared) = rest.strip_prefix("<?xml ") {
        rest = declared.split_once("?>").ok_or("its declaration has no end")?.1;
    }
    if rest.contains("<!") || rest.contains("<?") {
        return Err("it has a document type, comment, CDATA section or processing instruction".into());
    }
    if rest.matches('<').count() > 2 * TAGS_MAX || rest.matches("xmlns").count() > NAMESPACES_MAX {
        return Err("it has too many elements or namespaces".into());
    }
    if rest.split('<').any(|tag| tag.matches('=').count() > ATTRIBUTES_MAX) {
        return Err("an element has too many attributes".into());
    }
    Ok(())
}

/// A document of a stranger.
pub fn read(text: &str) -> Result<Document<'_>, String> {
    gate(text)?;
    parse(text)
}

/// A document of the operator: it may have comments.
pub fn read_file(text: &str) -> Result<Document<'_>, String> {
    parse(text)
}

fn parse(text: &str) -> Result<Document<'_>, String> {
    let parser = Parser::new().with_max_depth(DEPTH_MAX).with_forbid_dtd(true).with_forbid_entities(true);
    parser.parse(text.trim_start_matches('\u{feff}')).map_err(|e| format!("it is no XML: {e}"))
}

/// An element, with its document.
#[derive(Clone, Copy)]
pub struct Element<'d, 'x> {
    pub doc: &'d Document<'x>,
    pub id: NodeId,
}

impl<'d, 'x> Element<'d, 'x> {
    pub fn root(doc: &'d Document<'x>) -> Result<Self, String> {
        doc.document_element().map(|id| Element { doc, id }).ok_or_else(|| "it has no element".to_owned())
    }

    fn name(&self) -> Option<(&'d str, &'d str)> {
        let name = &self.doc.element(self.id)?.name;
        Some((name.namespace_uri.as_deref().unwrap_or_default(), &name.local_name))
    }

    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.name() == Some((namespace, name))
    }

    /// This one, if it is called so.
    pub fn called(self, namespace: &str, name: &str) -> Result<Self, String> {
        if self.is(namespace, name) { Ok(self) } else { Err(format!("there is something else where {name} belongs")) }
    }

    pub fn parent(&self) -> Option<Self> {
        let id = self.doc.parent(self.id)?;
        self.doc.element(id).map(|_| Element { doc: self.doc, id })
    }

    pub fn children(&self) -> Vec<Self> {
        let all = self.doc.children_iter(self.id);
        all.filter(|id| self.doc.element(*id).is_some()).map(|id| Element { doc: self.doc, id }).collect()
    }

    pub fn all(&self, namespace: &str, name: &str) -> Vec<Self> {
        self.children().into_iter().filter(|child| child.is(namespace, name)).collect()
    }

    /// The one child of that name, or none; two are refused, for readers would differ in which they take.
    pub fn maybe(&self, namespace: &str, name: &str) -> Result<Option<Self>, String> {
        match self.all(namespace, name).as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            _ => Err(format!("there is more than one {name}")),
        }
    }

    pub fn one(&self, namespace: &str, name: &str) -> Result<Self, String> {
        self.maybe(namespace, name)?.ok_or_else(|| format!("there is no {name}"))
    }

    /// An attribute without a namespace.
    pub fn attribute(&self, name: &str) -> Option<&'d str> {
        let all = self.doc.element(self.id)?.attributes.iter();
        let mut named = all.filter(|a| a.name.namespace_uri.is_none() && a.name.prefix.is_none());
        named.find(|a| a.name.local_name == name).map(|a| &*a.value)
    }

    pub fn need(&self, name: &str) -> Result<&'d str, String> {
        self.attribute(name).ok_or_else(|| format!("there is no attribute {name}"))
    }

    /// Its text, which has no elements in it.
    pub fn text(&self) -> Result<String, String> {
        let mut out = String::new();
        for id in self.doc.children_iter(self.id) {
            match self.doc.node_kind(id) {
                Some(NodeKind::Text(text)) => out.push_str(text),
                _ => return Err("there is something in a text that is no text".into()),
            }
        }
        Ok(out)
    }

    /// The same without spaces around it.
    pub fn word(&self) -> Result<String, String> {
        Ok(self.text()?.trim().to_owned())
    }

    /// This one and all below.
    pub fn everything(&self) -> Vec<Self> {
        let mut out = vec![*self];
        let mut at = 0;
        while let Some(element) = out.get(at).copied() {
            out.extend(element.children());
            at += 1;
        }
        out
    }
}

/// A text as content or as an attribute's value.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push_str("&#x9;"),
            '\n' => out.push_str("&#xA;"),
            '\r' => out.push_str("&#xD;"),
            // What XML cannot say at all.
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_elements_attributes_and_text_are_read() {
        for bad in [
            "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>",
            "<a><!-- c --></a>",
            "<a>x<!-- c -->y</a>",
            "<a><?p q?></a>",
            "<a><![CDATA[x]]></a>",
            "<?xml version='1.0'?><?p?><a/>",
            "<a>&unknown;</a>",
            "<a><b></a>",
            "<a b='1' b='2'/>",
            "<p:a/>",
            "",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read(&"<a>".repeat(5000)).is_err());
        let deep = |n: usize| format!("{}{}", "<a>".repeat(n), "</a>".repeat(n));
        assert!(read(&deep(60)).is_ok() && read(&deep(70)).is_err());
        let wide: String = (0..2000).map(|n| format!(" a{n}='1'")).collect();
        assert!(read(&format!("<a{wide}/>")).is_err());
        assert!(read("<?xml version='1.0' encoding='UTF-8'?>\n<a/>").is_ok());
    }

    #[test]
    fn names_are_of_their_namespace() {
        let doc = read("<a xmlns='u' xmlns:p='v' p:id='1' ID='2'><p:b/><b> x&amp; </b></a>").unwrap();
        let root = Element::root(&doc).unwrap();
        assert!(root.is("u", "a") && !root.is("", "a"));
        assert_eq!((root.attribute("id"), root.attribute("ID")), (None, Some("2")));
        assert!(root.one("v", "b").is_ok());
        assert_eq!(root.one("u", "b").unwrap().word().unwrap(), "x&");
        assert!(root.text().is_err() && root.one("u", "c").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in "\\PC*") {
            let xml = format!("<a b=\"{0}\">{0}</a>", escaped(&text));
            prop_assume!(xml.matches('=').count() <= ATTRIBUTES_MAX);
            let doc = read(&xml).unwrap();
            let root = Element::root(&doc).unwrap();
            prop_assert_eq!(root.attribute("b").unwrap(), &text);
            prop_assert_eq!(root.text().unwrap(), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[<>/&;!?a-z:= '\"#\\[\\]\\PC-]{0,200}") {
            if let Ok(doc) = read(&text) {
                let _ = Element::root(&doc).map(|root| root.everything().len());
            }
        }
    }
}
