import CSystem
import Glibc
import Server
import Supervision

/// Wires the node together and runs it to its end.
enum Node {
    /// Descriptors below which a node can't do its work.
    private static let leastDescriptors: Int64 = 32

    static func serve(_ options: ServeOptions) throws -> Int32 {
        cs_ignore_sigpipe()
        umask(0o077)
        // Workers run as the same user: they must not read the keys and the token from here.
        _ = cs_set_undumpable()
        let descriptorLimit = cs_raise_open_file_limit()
        guard descriptorLimit >= leastDescriptors else {
            throw CommandFailure(
                message:
                    "the limit of open files is \(descriptorLimit); at least \(leastDescriptors) are needed (ulimit -n)"
            )
        }
        let paths = NodePaths(data: options.dataFolder)
        let lock = try prepare(paths)
        let file = ConfigurationFile(path: paths.config + "/worker.json")
        let (configuration, origin) = try readConfiguration(file)
        if case .madeToken(let token) = origin {
            Terminal.out("AUTH TOKEN: \(token)\n(shown this once; it is kept in \(file.path))\n")
        }
        let path = Environment.variables["PATH"] ?? Files.defaultSearchPath
        if let publicKey = try SSHIdentity(folder: paths.ssh).prepare(path: path) {
            Terminal.out("SSH PUBLIC KEY: \(publicKey)\n(kept in \(paths.ssh))\n")
        }
        let loop = try EventLoop()
        let runner = try NodeRunner(
            options: options, paths: paths, file: file, configuration: configuration, loop: loop,
            descriptorLimit: descriptorLimit)
        let exitCode = ExitCode()
        let task = Task(executorPreference: loop) {
            exitCode.value = await runner.run()
            loop.stop()
        }
        loop.run()
        _ = task
        lock.close()
        return exitCode.value
    }

    /// Set by the node's task and read once the loop has ended, both on the loop's thread.
    private final class ExitCode: @unchecked Sendable {
        var value: Int32 = 0
    }

    /// Makes the folders, and sees to it that no other node uses them.
    private static func prepare(_ paths: NodePaths) throws -> Descriptor {
        do throws(SystemError) {
            try paths.makeFolders()
            let lock = Descriptor(
                owning: try checkErrno("open \(paths.data)/.lock") {
                    unsafe open(paths.data + "/.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
                })
            guard cs_lock_file(lock.number) >= 0 else {
                throw SystemError("another node uses the data folder \(paths.data)", errno: EBUSY)
            }
            return lock
        } catch {
            throw CommandFailure(message: "the data folder can't be used: \(error)")
        }
    }

    private static func readConfiguration(_ file: ConfigurationFile) throws -> (Configuration, ConfigurationFile.Origin)
    {
        do { return try file.loadOrMake() } catch let error as ConfigurationError {
            throw CommandFailure(message: "\(file.path) is not valid: \(error)")
        }
    }
}
