//! Against OpenSSL's command, which makes keys, certificates and signatures.
use super::*;
use std::process::Command;

const UUID: &str = "0b1a2c3d-0000-4000-8000-000000000001";

/// False when there is no `openssl` here.
fn openssl(directory: &Path, words: &str) -> bool {
    let done = Command::new("openssl").args(words.split(' ')).current_dir(directory).output();
    let Ok(done) = done else { return false };
    assert!(done.status.success(), "{words}: {}", String::from_utf8_lossy(&done.stderr));
    true
}

fn image(kind: &str, hash: &str, signature: &[u8]) -> Image {
    let mut image = Image::new("i".into(), None);
    for (name, value) in [
        (SIGNATURE, STANDARD.encode(signature)),
        (HASH_METHOD, hash.into()),
        (KEY_TYPE, kind.into()),
        (CERTIFICATE, UUID.into()),
    ] {
        image.properties.insert(name.into(), Some(value));
    }
    image
}

fn prehash(hash: HashMethod, data: &[u8]) -> Vec<u8> {
    let mut running = hash.start();
    data.chunks(3).for_each(|chunk| running.update(chunk));
    running.finish()
}

#[test]
fn signatures_of_every_kind_are_checked() {
    let home = tempfile::tempdir().unwrap();
    let (at, data) = (home.path(), b"the bytes of an image".as_slice());
    std::fs::write(at.join("data"), data).unwrap();
    let certificate = format!("req -new -x509 -key key -subj /CN=signer -days 2 -out {UUID}.pem");
    for (kind, make, sizes) in [
        ("RSA-PSS", "genrsa -out key 2048", ["SHA-224", "SHA-256", "SHA-512"]),
        ("ECC_SECP256R1", "ecparam -name prime256v1 -genkey -noout -out key", ["SHA-256", "SHA-384", "SHA-512"]),
        ("ECC_SECP384R1", "ecparam -name secp384r1 -genkey -noout -out key", ["SHA-256", "SHA-384", "SHA-512"]),
        ("ECC_SECP521R1", "ecparam -name secp521r1 -genkey -noout -out key", ["SHA-512", "SHA-384", "SHA-512"]),
    ] {
        if !openssl(at, make) {
            println!("skipped: no openssl here");
            return;
        }
        openssl(at, &certificate);
        for size in sizes {
            let name = size.to_lowercase().replace('-', "");
            for salt in ["max", "digest"] {
                let padding = if kind == "RSA-PSS" {
                    format!("-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:{salt} ")
                } else {
                    String::new()
                };
                openssl(at, &format!("dgst -{name} {padding}-sign key -out signature data"));
                let signature = std::fs::read(at.join("signature")).unwrap();
                let signed = required(Some(at), &image(kind, size, &signature)).unwrap().unwrap();
                assert!(signed.verify(&prehash(signed.hash, data)).is_ok(), "{kind} {size}");
                assert_eq!(signed.verify(&prehash(signed.hash, b"other bytes")).unwrap_err().code(), 400);
                let mut forged = signature;
                let last = forged.len() - 1;
                forged[last] ^= 1;
                let signed = required(Some(at), &image(kind, size, &forged)).unwrap().unwrap();
                assert!(signed.verify(&prehash(signed.hash, data)).is_err(), "{kind} {size} forged");
            }
        }
        for other in ["RSA-PSS", "ECC_SECP256R1", "ECC_SECP384R1", "ECC_SECP521R1", "DSA", "ECC_SECT571K1"] {
            if other != kind {
                assert!(required(Some(at), &image(other, "SHA-512", b"x")).is_err(), "{kind} as {other}");
            }
        }
    }
}

#[test]
fn what_cannot_be_used_is_refused_before_the_first_byte() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let mut part = image("RSA-PSS", "SHA-256", b"x");
    assert!(required(Some(at), &part).is_err(), "no such certificate");
    assert!(required(None, &part).is_err(), "no certificates at all");
    part.properties.insert(CERTIFICATE.into(), Some("../../etc/passwd".into()));
    assert!(required(Some(at), &part).is_err());
    part.properties.remove(CERTIFICATE);
    assert!(required(Some(at), &part).unwrap().is_none(), "not all four: not signed");
    std::fs::write(at.join(format!("{UUID}.pem")), "nonsense").unwrap();
    assert!(required(Some(at), &image("RSA-PSS", "SHA-256", b"x")).is_err());
    if openssl(at, "genrsa -out key 2048") {
        openssl(at, &format!("req -new -x509 -key key -subj /CN=signer -days 2 -out {UUID}.pem"));
        assert!(required(Some(at), &image("RSA-PSS", "MD5", b"x")).is_err());
        let mut text = image("RSA-PSS", "SHA-256", b"x");
        text.properties.insert(SIGNATURE.into(), Some("no base64!".into()));
        assert!(required(Some(at), &text).is_err());
    }
}
