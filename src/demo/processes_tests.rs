use super::*;

fn shell(folder: &Path, script: &str) -> Spec {
    Spec {
        name: "child",
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
        folder: folder.to_owned(),
        outlives_us: false,
    }
}

#[tokio::test]
async fn a_death_that_nobody_asked_for_is_told_with_the_end_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let watch = Watch::new();
    let script = "echo child listening on 1; while [ ! -e go ]; do sleep 0.01; done; echo ouch >&2; exit 3";
    let child = Process::start(&shell(folder.path(), script), &watch, false)
        .await
        .unwrap();
    std::fs::write(folder.path().join("go"), "").unwrap();
    let told = timeout(PATIENCE, watch.death()).await.unwrap().to_string();
    assert!(
        told.contains("child died unexpectedly (exit status: 3)") && told.contains("| ouch"),
        "{told}"
    );
    assert!(matches!(child.says("never").await, Err(ProcessError::Died(_))));
}

#[tokio::test]
async fn a_killed_process_is_gone_and_no_news() {
    let folder = tempfile::tempdir().unwrap();
    let watch = Watch::new();
    let spec = shell(folder.path(), "echo child listening on 1; exec sleep 60");
    let child = Process::start(&spec, &watch, false).await.unwrap();
    child.kill().await.unwrap();
    assert!(watch.first_death.borrow().is_none());
    // A second run is not answered by what the first one wrote.
    let mute = shell(folder.path(), "echo child: cannot listen on 1; exit 1");
    let error = Process::start(&mute, &watch, false).await.err().unwrap();
    assert!(matches!(error, ProcessError::PortTaken { .. }), "{error}");
}

#[tokio::test]
async fn whoever_is_being_started_is_killed_with_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let watch = Watch::new();
    let spec = shell(folder.path(), "echo $$ > pid; exec sleep 60");
    let pid = async {
        loop {
            match std::fs::read_to_string(folder.path().join("pid")) {
                Ok(pid) if pid.ends_with('\n') => return pid,
                _ => sleep(LOOK_INTERVAL).await,
            }
        }
    };
    let pid = tokio::select! {
        pid = pid => pid,
        _ = Process::start(&spec, &watch, false) => panic!("it never listens"),
    };
    watch.kill_all().await.unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists());
}
