//! Microversions: which one a request speaks, and what the answer says about it.
//!
//! `OpenStack-API-Version: <service type> X.Y` (several services may stand in one header, separated by
//! commas), or the service's older header with a bare `X.Y`. `latest` means the maximum. Out of range is
//! 406 with both bounds; unreadable is 400. Every answer names the version used and varies on the header.
use crate::fault::Fault;
use http::HeaderMap;
use std::fmt;

/// `major.minor`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16, pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

impl Version {
    /// Reads `X.Y` without leading zeros.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let number = |s: &str| -> Option<u16> {
            let plain = s.len() <= 5 && s.bytes().all(|b| b.is_ascii_digit()) && (s == "0" || !s.starts_with('0'));
            if plain { s.parse().ok() } else { None }
        };
        Some(Version(number(major)?, number(minor)?))
    }
}

/// The microversions of one service.
#[derive(Debug, Clone)]
pub struct Microversions {
    /// As in `OpenStack-API-Version: compute 2.1`
    pub service_type: &'static str,
    /// The service's own header from before that one.
    pub legacy_header: Option<&'static str>,
    pub min: Version,
    pub max: Version,
    /// Used when the client says nothing.
    pub default: Version,
}

pub const HEADER: &str = "openstack-api-version";

impl Microversions {
    fn asked(&self, headers: &HeaderMap) -> Option<String> {
        for value in headers.get_all(HEADER) {
            for part in value.to_str().ok()?.split(',') {
                let mut words = part.split_whitespace();
                if let (Some(service), Some(version)) = (words.next(), words.next())
                    && service.eq_ignore_ascii_case(self.service_type)
                {
                    return Some(version.to_owned());
                }
            }
        }
        let legacy = headers.get(self.legacy_header?)?;
        Some(legacy.to_str().ok()?.trim().to_owned())
    }

    /// The version this request speaks.
    pub fn negotiate(&self, headers: &HeaderMap) -> Result<Version, Fault> {
        let Some(text) = self.asked(headers) else { return Ok(self.default) };
        if text.eq_ignore_ascii_case("latest") {
            return Ok(self.max);
        }
        let Some(version) = Version::parse(&text) else {
            return Err(Fault::bad_request(format!(
                "API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum."
            )));
        };
        if version < self.min || version > self.max {
            return Err(Fault::new(
                406,
                format!(
                    "Version {version} is not supported by the API. Minimum is {} and maximum is {}.",
                    self.min, self.max
                ),
            )
            .with("max_version", self.max.to_string())
            .with("min_version", self.min.to_string()));
        }
        Ok(version)
    }

    /// The headers of the answer.
    pub fn answer(&self, version: Version) -> Vec<(&'static str, String)> {
        let mut out =
            vec![(HEADER, format!("{} {version}", self.service_type)), ("vary", "OpenStack-API-Version".to_owned())];
        if let Some(legacy) = self.legacy_header {
            out.push((legacy, version.to_string()));
            out.push(("vary", legacy.to_owned()));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions() -> Microversions {
        Microversions {
            service_type: "compute",
            legacy_header: Some("x-openstack-nova-api-version"),
            min: Version(2, 1),
            max: Version(2, 104),
            default: Version(2, 1),
        }
    }

    fn ask(name: &'static str, value: &str) -> Result<Version, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        versions().negotiate(&headers)
    }

    #[test]
    fn speaks_both_headers_and_refuses_outside_the_bounds() {
        assert_eq!(ask(HEADER, "compute 2.72").unwrap(), Version(2, 72));
        assert_eq!(ask(HEADER, "placement 1.3, compute 2.5").unwrap(), Version(2, 5));
        assert_eq!(ask(HEADER, "placement 1.3").unwrap(), Version(2, 1));
        assert_eq!(ask("x-openstack-nova-api-version", "latest").unwrap(), Version(2, 104));
        assert_eq!(ask(HEADER, "compute 2.105").unwrap_err().code(), 406);
        assert_eq!(ask(HEADER, "compute 2.01").unwrap_err().code(), 400);
        assert_eq!(ask(HEADER, "compute two").unwrap_err().code(), 400);
    }
}
