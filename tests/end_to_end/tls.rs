//! TLS to both databases is verified unless the address says otherwise.

use blackwater_tests::World;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Gives the server a certificate for the name `localhost`; the file of its authority.
async fn with_certificate(world: &World) -> String {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &authority).unwrap();
    // The server writes the files itself, so they are its own and nobody else may read the key.
    for (file, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem())] {
        let lines: Vec<_> = text.lines().map(|line| format!("('{line}')")).collect();
        let sql = format!("COPY (VALUES {}) TO PROGRAM 'umask 077; cat > {file}'", lines.join(", "));
        world.source.batch_execute(&sql).await.unwrap();
    }
    world.source.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    world.source.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let file = world.configuration().with_file_name("authority.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    file.display().to_string()
}

/// The error of a run with this address of the source, or nothing.
async fn run_with(world: &World, host: &str, sslmode: &str) -> Option<String> {
    let address = |database: &str| format!("postgres://postgres@{host}:{}/{database}{sslmode}", world.server.port());
    world.configure(&address("source"), &address("warehouse"), "directory = \"buckets\"");
    let finished = world.blackwater(&["run"]).await;
    let report: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    Some(format!("{}. {}", report["error"].as_str()?, report["remedy"].as_str()?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_unless_the_address_says_so() {
    let world = World::totesys().await;
    let error = run_with(&world, "127.0.0.1", "").await.unwrap();
    assert!(error.contains("does not support TLS") && error.contains("sslmode=disable"), "{error}");
    assert_eq!(run_with(&world, "127.0.0.1", "?sslmode=prefer").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_and_the_name_are_verified() {
    let world = World::totesys().await;
    let authority = with_certificate(&world).await;
    let known = |mode: &str| format!("?sslmode={mode}&sslrootcert={authority}");

    let error = run_with(&world, "localhost", "").await.unwrap();
    assert!(error.contains("UnknownIssuer") && error.contains("sslrootcert"), "{error}");
    let error = run_with(&world, "localhost", "?sslmode=verify-ca").await.unwrap();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let error = run_with(&world, "127.0.0.1", &known("verify-full")).await.unwrap();
    assert!(error.contains("not valid for name"), "{error}");
    let error = run_with(&world, "localhost", "?sslrootcert=/nowhere.pem").await.unwrap();
    assert!(error.contains("/nowhere.pem"), "{error}");

    assert_eq!(run_with(&world, "127.0.0.1", &known("verify-ca")).await, None);
    assert_eq!(run_with(&world, "localhost", &known("verify-full")).await, None);
    assert_eq!(run_with(&world, "127.0.0.1", "?sslmode=require").await, None);
    world.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_refused_is_not_tried_again() {
    let world = World::totesys().await;
    with_certificate(&world).await;
    let extract = async |port: u16| {
        let source = format!("postgres://postgres@localhost:{port}/source");
        world.configure(&source, &world.server.url("warehouse"), "directory = \"buckets\"");
        world.blackwater(&["extract", "-v"]).await
    };
    let refused = extract(world.server.port()).await;
    refused.says(1, &["UnknownIssuer"]);
    assert!(!refused.stderr.contains("trying again"), "{refused:?}");
    // A server that is not there may come.
    let nobody = extract(1).await;
    nobody.says(1, &["source.url"]);
    assert!(nobody.stderr.contains("trying again"), "{nobody:?}");
}
