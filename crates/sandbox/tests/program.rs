//! The pages of the program itself. A program of its own, so that no other test maps them meanwhile.

/// Pages of files that this process has mapped and in memory, in KiB.
fn file_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssFile:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

static WRITTEN: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(7);

#[test]
fn pages_of_the_program_are_let_go_of_and_found_again_and_what_was_written_stays() {
    WRITTEN.store(8, std::sync::atomic::Ordering::Relaxed);
    let constant = std::hint::black_box("a constant of the program");
    let before = file_kib();
    longshore_sandbox::let_go_of_the_program();
    let after = file_kib();
    assert!(after < before / 2 + 512, "{before} KiB before, {after} KiB after");

    // Relocated tables (of a trait), constants and code are as they were, in other threads, too.
    let shown: Box<dyn std::fmt::Display + Send> = std::hint::black_box(Box::new(constant));
    let read = std::thread::spawn(move || shown.to_string()).join().unwrap();
    assert_eq!(read, "a constant of the program");
    assert_eq!(WRITTEN.load(std::sync::atomic::Ordering::Relaxed), 8);
    longshore_sandbox::let_go_of_the_program();
    longshore_sandbox::let_go_of_the_program();
}
