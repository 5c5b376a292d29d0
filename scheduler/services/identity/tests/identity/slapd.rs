//! A real directory server, private to one test: `slapd` on a port of loopback, with people in it.
use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

pub const SUFFIX: &str = "dc=example,dc=org";
pub const READER: &str = "cn=reader,dc=example,dc=org";
pub const READER_PASSWORD: &str = "the reader's";

pub struct Slapd {
    child: Child,
    pub port: u16,
    pub tls_port: u16,
    pub dir: tempfile::TempDir,
}

impl Drop for Slapd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<&'static str> {
    ["/usr/sbin/slapd", "/usr/lib/openldap/slapd"].into_iter().find(|p| Path::new(p).exists())
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// People and groups; every password is the uid.
fn people() -> String {
    let mut out =
        format!("dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example\n\n");
    out += &format!("dn: {READER}\nobjectClass: person\nsn: reader\ncn: reader\nuserPassword: {READER_PASSWORD}\n\n");
    for unit in ["people", "groups"] {
        out += &format!("dn: ou={unit},{SUFFIX}\nobjectClass: organizationalUnit\nou: {unit}\n\n");
    }
    let mut names: Vec<String> = ["ann", "bob", "eve", "o'b*(x)\\y"].map(str::to_owned).into();
    names.extend((0..25).map(|i| format!("crowd{i:02}")));
    for name in &names {
        // What is odd stands in an attribute, not in the name of the entry.
        let number = names.iter().position(|n| n == name).unwrap();
        let kind = if name == "eve" { "suspended" } else { "staff" };
        out += &format!(
            "dn: employeeNumber={number},ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nemployeeNumber: {number}\nuid: {name}\ncn: {name}\nsn: {name}\n\
             mail: {name}@example.org\nemployeeType: {kind}\ndescription: number {number}\ntelephoneNumber: 555{number}\nuserPassword: {name}\n\n"
        );
    }
    let dn = |number: usize| format!("employeeNumber={number},ou=people,{SUFFIX}");
    out += &format!(
        "dn: cn=admins,ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: admins\nou: Admins\nmember: {}\nmember: {}\n\n",
        dn(0),
        dn(2)
    );
    out += &format!(
        "dn: cn=enabled_users,ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: enabled_users\nou: enabled\nmember: {}\n\n",
        dn(0)
    );
    out
}

/// A certificate for localhost and 127.0.0.1, signed by itself: (certificate, key) as files.
fn certificate(dir: &Path) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

impl Slapd {
    /// `None` where slapd is not installed.
    pub async fn start() -> Option<Self> {
        let Some(program) = program() else {
            eprintln!("skipped: slapd is not installed (Debian: apt-get install slapd)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = certificate(dir.path());
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        let config = dir.path().join("slapd.conf");
        let modules = ["/usr/lib/ldap", "/usr/libexec/openldap"].into_iter().find(|p| Path::new(p).exists()).unwrap();
        fs::write(
            &config,
            format!(
                "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\ninclude /etc/ldap/schema/inetorgperson.schema\n\
                 modulepath {modules}\nmoduleload back_mdb\npidfile {0}/pid\nTLSCertificateFile {1}\nTLSCertificateKeyFile {2}\n\
                 database mdb\nsuffix \"{SUFFIX}\"\nrootdn \"cn=root,{SUFFIX}\"\nrootpw root\ndirectory {3}\nmaxsize 10485760\n\
                 limits users size.soft=unlimited size.hard=unlimited size.pr=10 size.prtotal=unlimited\n\
                 access to attrs=userPassword by anonymous auth by * none\naccess to * by dn.base=\"{READER}\" read by * none\n",
                dir.path().display(),
                certificate.display(),
                key.display(),
                data.display()
            ),
        )
        .unwrap();
        let ldif = dir.path().join("people.ldif");
        fs::write(&ldif, people()).unwrap();
        let add = Command::new(program).args(["-T", "add", "-f"]).arg(&config).arg("-l").arg(&ldif).output().unwrap();
        assert!(add.status.success(), "slapadd: {}", String::from_utf8_lossy(&add.stderr));
        let (port, tls_port) = (free_port(), free_port());
        let child = Command::new(program)
            .args(["-d", "0", "-h", &format!("ldap://127.0.0.1:{port}/ ldaps://127.0.0.1:{tls_port}/"), "-f"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let slapd = Slapd { child, port, tls_port, dir };
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(slapd);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("slapd does not answer");
    }

    pub fn url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.port)
    }

    /// Changes one entry with slapd's own means: it is stopped meanwhile.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
