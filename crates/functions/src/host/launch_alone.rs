//! The sandbox's helper as a program of its own, for tests of the host without the server's binary.

fn main() {
    longshore_sandbox::helper::main()
}
