//! The launcher as a program of its own, for tests of the host without the server's binary.

fn main() {
    longshore_functions::host::launch::main(std::env::args_os().skip(1))
}
