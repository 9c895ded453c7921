use super::super::{RedisMode, RedisUrl};
use super::*;

#[test]
fn byte_sizes_in_both_spellings() {
    for (text, bytes) in
        [("0", 0), ("1024", 1024), ("1kB", 1000), ("512KiB", 524_288), ("16MiB", 16 << 20), ("2 GiB", 2 << 30)]
    {
        assert_eq!(usize::from_text(text), Some(bytes), "{text}");
    }
    for text in ["", "MiB", "-1", "1.5MiB", "1mb", "1 MiBs", "99999999999999999999", "18446744073709551615GiB"] {
        assert!(usize::from_text(text).is_none(), "{text}");
    }
}

#[test]
fn a_value_reads_back_from_its_text() {
    fn check<T: Setting>(texts: &[&str]) {
        for text in texts {
            assert_eq!(T::from_text(text).map(|value| value.to_text()).as_deref(), Some(*text));
        }
    }
    check::<String>(&["", "a \"b\""]);
    check::<PathBuf>(&["", "/run/secrets/token"]);
    check::<SocketAddr>(&["127.0.0.1:8000", "[::1]:0"]);
    check::<Option<SocketAddr>>(&["", "127.0.0.1:8001"]);
    check::<Duration>(&["0s", "500ms", "1h30m", "180d", "2w", "1y", "382d4h5m6s7ms"]);
    check::<u32>(&["0", "1024"]);
    check::<bool>(&["true", "false"]);
    check::<Vec<u8>>(&["", "75,50,25,0"]);
    check::<Option<Duration>>(&["off", "12h", "8d"]);
    check::<Option<Weekly>>(&["off", "mon 09:00", "sun 23:05"]);
    check::<usize>(&["0", "1000", "512KiB", "16MiB", "2GiB"]);
    check::<BTreeMap<String, Severity>>(&["", "info=medium,warning=high"]);
    check::<RedisUrl>(&["rediss://user:p%40ss@redis.example:6380/2"]);
    check::<RedisMode>(&["standalone", "sentinel", "cluster"]);
}
