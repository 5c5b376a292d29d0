//! TLS to the database server: always with a verified certificate and name.
use crate::Error;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use std::{path::Path, sync::Arc};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Where Linux distributions keep the authorities they trust.
const SYSTEM_ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Takes libpq's `sslrootcert` out of the URL: the driver does not know it. Its path is taken as it stands.
pub(super) fn split_roots(url: &str) -> (String, Option<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let mut roots = None;
    let mut kept = Vec::new();
    for pair in query.split('&') {
        match pair.strip_prefix("sslrootcert=") {
            Some(path) => roots = Some(path.to_owned()),
            None => kept.push(pair),
        }
    }
    let url = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    (url, roots)
}

pub(super) fn connector(roots: Option<&str>) -> Result<MakeRustlsConnect, Error> {
    let broken = |reason: String| Error::Url { reason };
    let path = match roots {
        Some(path) => path,
        None => SYSTEM_ROOTS.iter().find(|path| Path::new(path).exists()).ok_or_else(|| {
            broken("sslmode=require needs sslrootcert=/path: this system has no list of authorities".into())
        })?,
    };
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| broken(format!("{path}: {error}")))?;
    store.add_parsable_certificates(certificates.filter_map(Result::ok));
    if store.is_empty() {
        return Err(broken(format!("{path} holds no certificate")));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(error.to_string()))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::split_roots;

    #[test]
    fn takes_the_root_certificate_out_of_the_url() {
        let (url, roots) = split_roots("postgres://u@h/d?sslmode=require&sslrootcert=/ca.pem&connect_timeout=3");
        assert_eq!(url, "postgres://u@h/d?sslmode=require&connect_timeout=3");
        assert_eq!(roots.as_deref(), Some("/ca.pem"));
        assert_eq!(split_roots("postgres://h/d?sslrootcert=/x").0, "postgres://h/d");
        assert_eq!(split_roots("postgres://h/d"), ("postgres://h/d".to_owned(), None));
    }
}
