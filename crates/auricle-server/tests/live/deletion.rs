//! A user deletes everything while they are connected.

use crate::rig::{Rig, eventually};

/// Rows of the user, in the tables that hold most.
fn rows(rig: &Rig, user: &str) -> i64 {
    let db = rusqlite::Connection::open(rig.data().join("auricle.db")).unwrap();
    let sql = "SELECT (SELECT count(*) FROM users WHERE id = ?1) + (SELECT count(*) FROM conversations c \
               JOIN users u ON u.rid = c.user WHERE u.id = ?1) + (SELECT count(*) FROM segments)";
    db.query_row(sql, [user], |row| row.get(0)).unwrap()
}

fn runs(rig: &Rig) -> usize {
    let folders = std::fs::read_dir(rig.data().join("spool")).unwrap().flatten();
    folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("run-")).count()
}

#[tokio::test]
async fn a_deleted_users_sessions_are_closed_and_nothing_of_them_is_left() {
    let rig = Rig::start(&[]).await;
    let mut device = rig.device().await;
    device.conversation().await;
    device.speak(4.0).await;
    device.texts_up_to("tomorrow").await;
    assert!(rows(&rig, "local") >= 3);
    // A slip deletes nothing.
    assert_eq!(rig.delete("/v1/users/me").await, 422);
    assert_eq!(rig.delete("/v1/users/me?confirm=somebody").await, 422);
    assert_eq!(rig.delete("/v1/users/me?confirm=local").await, 202);
    assert_eq!(device.closed().await, (1008, "user deleted".into()));
    eventually("everything is gone", async || (rows(&rig, "local") == 0 && runs(&rig) == 0).then_some(()))
        .await;
    assert_eq!(rig.get("/v1/conversations").await.1.as_array().unwrap().len(), 0);
    // Whoever comes back is new.
    let mut again = rig.device().await;
    again.conversation().await;
    again.speak(4.0).await;
    again.texts_up_to("tomorrow").await;
    rig.still_serves().await;
}
