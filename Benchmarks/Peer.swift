import CSystem
import Glibc
import Supervision
import TestSupport

/// Another program that answers `/health`, where this machine has it: nginx as the limit, Node as what's usual.
final class Peer {
    let name: String
    let port: UInt16
    /// The process that does the answering.
    let worker: Int32
    private let pid: Int32
    private let folder: TemporaryFolder

    private init(name: String, port: UInt16, worker: Int32, pid: Int32, folder: TemporaryFolder) {
        self.name = name
        self.port = port
        self.worker = worker
        self.pid = pid
        self.folder = folder
    }

    deinit {
        _ = cs_kill(pid, SIGTERM)
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
    }

    /// - Parameter logLines: how long the log is that the peer in Node serves.
    static func all(logLines: Int) throws -> [Peer] {
        [try nginx(), try node(logLines: logLines)].compactMap { $0 }
    }

    private static func nginx() throws -> Peer? {
        let folder = try TemporaryFolder()
        let port = try freePort()
        try folder.write(
            "nginx.conf",
            """
            daemon off; master_process off; pid \(folder.path)/pid; error_log /dev/null;
            events { worker_connections 2048; }
            http { access_log off; keepalive_requests 100000000;
              server { listen 127.0.0.1:\(port); location / { default_type application/json; return 200 '{"status":"ok"}'; } } }
            """)
        let path = "/usr/sbin:" + (TestEnvironment.variables["PATH"] ?? Files.defaultSearchPath)
        guard
            let command = Command(
                program: "nginx", ["-c", folder.path + "/nginx.conf", "-e", "/dev/null"], environment: ["PATH": path])
        else { return nil }
        let pid = try start(command, output: open("/dev/null", O_WRONLY | O_CLOEXEC))
        guard TestEnvironment.eventually(within: .seconds(10), { (try? TestConnection(port: port)) != nil }) else {
            return nil
        }
        return Peer(name: "nginx return 200", port: port, worker: pid, pid: pid, folder: folder)
    }

    private static func node(logLines: Int) throws -> Peer? {
        let folder = try TemporaryFolder()
        let script = Environment.benchmarksFolder + "/peers/original.js"
        let lines = (1...logLines).map { "line \($0) of a log that is as long as most\n" }.joined()
        try folder.write("log", lines)
        guard Files.exists(script),
            let command = Command(
                program: "node", [script, folder.path + "/log", "10"], environment: TestEnvironment.variables)
        else { return nil }
        let output = open(folder.path + "/out", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        let pid = try start(command, output: output)
        var port: UInt16?
        _ = try TestEnvironment.eventually(within: .seconds(10)) {
            let line = try folder.read("out").split(separator: "\n").first
            port = line.flatMap { UInt16($0.dropFirst("port ".count)) }
            return port != nil
        }
        guard let port else { return nil }
        return Peer(name: "Node http", port: port, worker: pid, pid: pid, folder: folder)
    }

    private static func start(_ command: Command, output: Int32) throws -> Int32 {
        let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
        defer {
            close(null)
            close(output)
        }
        return try command.spawn(descriptors: [null, output, output])
    }

    private static func freePort() throws -> UInt16 {
        var port: UInt16 = 0
        let socket = cs_listen("127.0.0.1", 0, 1, &port)
        close(socket)
        return port
    }

    private enum Environment {
        /// Where this file is.
        static let benchmarksFolder = Files.parent(of: #filePath) ?? "."
    }
}
