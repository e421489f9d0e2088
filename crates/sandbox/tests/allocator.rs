//! What the allocator keeps for itself. A program of its own: what it was told cannot be taken back, and other tests' threads
//! would have arenas of their own.

#![cfg(target_env = "gnu")]

use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};

#[test]
fn threads_share_two_arenas_and_large_pieces_go_back_to_the_kernel_each_time() {
    longshore_sandbox::bound_the_allocator();

    // Whoever has threads has them allocate at once, each with its own arena as long as there may be more.
    let all = Arc::new(Barrier::new(8));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let all = Arc::clone(&all);
            std::thread::spawn(move || {
                let small = Box::new([1_u8; 600]);
                all.wait();
                // An arena that is not the program's own lies in 64 MiB of its own, from a multiple of that on.
                std::ptr::from_ref(&*small).addr() >> 26
            })
        })
        .collect();
    let arenas: BTreeSet<usize> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(arenas.len() <= 2, "{arenas:?}");

    // What is mapped by itself begins behind its head, 16 bytes from a page's start. After the first that was freed the allocator
    // would take the next ones from an arena, and keep them.
    for _ in 0..8 {
        let large = vec![1_u8; 1 << 20];
        assert_eq!(large.as_ptr().addr() % 4_096, 16);
    }
}
