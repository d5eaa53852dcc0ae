use std::{fs, path::Path};

use super::*;

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/crds")
}

/// `UPDATE_CRDS=1 cargo test --lib crds_in_deploy` writes them anew.
#[test]
fn crds_in_deploy_are_those_of_the_types() {
    for crd in crds() {
        let path = folder().join(format!("{}_{}.yaml", GROUP, crd.spec.names.plural));
        let yaml = crds::yaml(&crd);
        if std::env::var_os("UPDATE_CRDS").is_some() {
            fs::create_dir_all(folder()).expect("folder");
            fs::write(&path, &yaml).expect("written");
        }
        let stored = fs::read_to_string(&path).unwrap_or_default();
        // Without the two texts: they are long.
        assert!(stored == yaml, "{} is out of date: UPDATE_CRDS=1 cargo test --lib crds_in_deploy", path.display());
    }
    // Beside them: a Kustomization, which has no ending.
    let yaml = |file: &std::io::Result<fs::DirEntry>| file.as_ref().is_ok_and(|f| f.path().extension().is_some());
    let files = fs::read_dir(folder()).expect("folder").filter(yaml).count();
    assert_eq!(files, crds().len(), "deploy/crds holds a file of no kind");
}
