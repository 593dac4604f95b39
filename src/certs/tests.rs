use std::collections::BTreeMap;

use super::*;

fn options(dir: &Path) -> CertsOptions {
    CertsOptions {
        dir: dir.to_owned(),
        ..CertsOptions::default()
    }
}

fn snapshot(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap_or_default(),
            )
        })
        .collect()
}

#[test]
fn a_set_is_complete_and_its_keys_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let made = generate(&options(&dir.path().join("certs"))).unwrap();
    let names: Vec<_> = snapshot(&dir.path().join("certs")).into_keys().collect();
    assert_eq!(
        names,
        [
            "ca.key",
            "ca.pem",
            "gateway.key",
            "gateway.pem",
            "operator-ops.key",
            "operator-ops.pem",
            "partner-alipay.key",
            "partner-alipay.pem",
            "partner-apple-pay.key",
            "partner-apple-pay.pem",
        ]
    );
    for file in &made.files {
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        let key = file.extension().is_some_and(|extension| extension == "key");
        // A certificate's mode passes through the umask; a key's is exact.
        assert!(
            if key { mode == 0o600 } else { mode & 0o600 == 0o600 },
            "{}: {mode:o}",
            file.display()
        );
    }
    for (principal, files) in &made.leaves {
        assert_eq!(files, &files_of(&dir.path().join("certs"), principal));
        crate::tls::server_config(files).unwrap();
    }
}

#[test]
fn what_exists_is_listed_and_left_alone_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    generate(&options(dir.path())).unwrap();
    fs::remove_file(dir.path().join("ca.pem")).unwrap();
    let before = snapshot(dir.path());
    let error = generate(&options(dir.path())).unwrap_err();
    let CertsError::Exists { files } = &error else {
        panic!("{error}")
    };
    assert_eq!(files.len(), 9);
    assert!(error.to_string().contains("partner-apple-pay.key"), "{error}");
    assert_eq!(snapshot(dir.path()), before);

    generate(&CertsOptions {
        force: true,
        ..options(dir.path())
    })
    .unwrap();
    let after = snapshot(dir.path());
    assert_eq!(after.len(), 10);
    assert!(before.iter().all(|(name, content)| after[name] != *content));
}

#[test]
fn a_failure_halfway_takes_everything_back() {
    let dir = tempfile::tempdir().unwrap();
    generate(&options(dir.path())).unwrap();
    // A directory in a file's place cannot be overwritten even by force, and it is among the last to be placed.
    let obstacle = dir.path().join("operator-ops.key");
    fs::remove_file(&obstacle).unwrap();
    fs::create_dir(&obstacle).unwrap();
    fs::write(obstacle.join("inside"), "x").unwrap();
    let before = snapshot(dir.path());
    let error = generate(&CertsOptions {
        force: true,
        ..options(dir.path())
    })
    .unwrap_err();
    assert!(
        matches!(&error, CertsError::Io { path, .. } if path == &obstacle),
        "{error}"
    );
    assert_eq!(snapshot(dir.path()), before);
}

#[test]
fn bad_names_make_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        CertsOptions {
            partners: vec!["Apple Pay".to_owned()],
            ..options(dir.path())
        },
        CertsOptions {
            trust_domain: "no/domain".to_owned(),
            ..options(dir.path())
        },
        CertsOptions {
            gateways: vec!["ca".to_owned()],
            ..options(dir.path())
        },
        CertsOptions {
            partners: vec!["a".to_owned(), "a".to_owned()],
            ..options(dir.path())
        },
        CertsOptions {
            valid_days: u32::MAX,
            ..options(dir.path())
        },
    ];
    for options in cases {
        generate(&options).expect_err(&format!("{options:?}"));
        assert!(snapshot(dir.path()).is_empty());
    }
}

#[test]
fn a_written_authority_issues_more_leaves() {
    let dir = tempfile::tempdir().unwrap();
    generate(&options(dir.path())).unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let principal = Principal::parse("spiffe://causeway.dev/partner/paypay").unwrap();
    let leaf = issue(&authority, &LeafSpec::of(&principal)).unwrap();
    assert_eq!(Principal::from_certificate(leaf.certificate_der()), Ok(principal));
    let files = leaf.write(dir.path(), "paypay", &authority).unwrap();
    crate::tls::server_config(&files).unwrap();
    assert!(!format!("{leaf:?}").contains("PRIVATE KEY"));
}
