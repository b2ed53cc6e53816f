use super::{NOW_MS, append, read_all};
use crate::spool::{Config, Spool};

#[test]
fn a_restart_continues_the_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config::new(folder.path().join("spool"));
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens");
    let incarnation = spool.incarnation();
    assert_eq!(append(&mut writer, &["a", "b"]), 3);
    assert_eq!(append(&mut writer, &["c"]), 4);
    writer.close();
    drop(spool);
    let (spool, mut writer) = Spool::open(&config, NOW_MS).expect("opens again");
    assert_eq!(spool.incarnation(), incarnation);
    assert_eq!(spool.next_number(), 4);
    assert_eq!(append(&mut writer, &["d"]), 5);
    assert_eq!(read_all(&spool, 1), ["a", "b", "c", "d"]);
    assert_eq!(read_all(&spool, 2), ["b", "c", "d"]);
}
