use super::*;
use crate::config::certificate::describe;

fn write_pair(dir: &Path, file: &str, names: &[&str]) -> CertificateFiles {
    let made = rcgen::generate_simple_self_signed(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    let files = CertificateFiles {
        cert: dir.join(format!("{file}.pem")),
        key: dir.join(format!("{file}.key")),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    files
}

#[test]
fn the_name_asked_for_chooses_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let shop = write_pair(dir.path(), "shop", &["shop.example.com", "*.shop.example.com"]);
    let wild = write_pair(dir.path(), "wild", &["*.example.com"]);
    let table = ByName::load(&[shop, wild]).unwrap();
    let chosen = |name: Option<&str>| {
        let key = table.choose(name);
        let (names, _) = describe(&key.cert[0]).unwrap();
        names[0].clone()
    };
    assert_eq!(chosen(Some("shop.example.com")), "shop.example.com");
    assert_eq!(chosen(Some("eu.shop.example.com")), "shop.example.com");
    assert_eq!(chosen(Some("blog.example.com")), "*.example.com");
    assert_eq!(
        chosen(Some("a.b.example.com")),
        "shop.example.com",
        "an asterisk is one label: the default answers"
    );
    assert_eq!(chosen(None), "shop.example.com");
}

#[test]
fn a_key_of_another_certificate_is_refused_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let one = write_pair(dir.path(), "one", &["one.example.com"]);
    let two = write_pair(dir.path(), "two", &["two.example.com"]);
    let crossed = CertificateFiles {
        cert: one.cert,
        key: two.key.clone(),
    };
    let fault = Certificates::load(vec![crossed]).unwrap_err();
    assert_eq!(fault.file, two.key);
}

#[test]
fn a_broken_reload_leaves_the_certificates_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_pair(dir.path(), "shop", &["shop.example.com"]);
    let certificates = Certificates::load(vec![files.clone()]).unwrap();
    std::fs::write(&files.cert, "half a certific").unwrap();
    assert!(certificates.reload().is_err());
    assert_eq!(certificates.current.load().exact.len(), 1);
    write_pair(dir.path(), "shop", &["new.example.com"]);
    certificates.reload().unwrap();
    assert!(certificates.current.load().exact.contains_key("new.example.com"));
}

#[test]
fn an_authority_that_is_no_certificate_is_refused_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = Certificates::load(vec![write_pair(dir.path(), "shop", &["shop.example.com"])]).unwrap();
    let file = dir.path().join("clients.pem");
    std::fs::write(&file, "nothing of the kind").unwrap();
    assert!(settings(&certificates, Some(&file), true).is_err());
    assert!(settings(&certificates, None, true).is_ok());
}
