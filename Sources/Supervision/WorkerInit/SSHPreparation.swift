import CSystem
import Glibc

/// Gives a worker what it needs to reach its remote over SSH: the known hosts, and the key or an agent that holds it.
struct SSHPreparation {
    let order: WorkOrder

    /// The longest path of a socket (unix(7)), without its NUL.
    private static let longestSocketPath = 107
    private static let timeout = Duration.seconds(10)

    func run(under supervisor: InitSupervisor) throws(InitFailure) {
        do throws(SystemError) {
            try Files.makeFolders(order.home + "/.ssh")
            try copy("known_hosts")
            if order.sshKey == .copy { try copy(WorkOrder.sshKeyName) }
        } catch { throw .step("the SSH key of this node: \(error)") }
        if order.sshKey == .agent { try startAgent(supervisor) }
    }

    private func copy(_ name: String) throws(SystemError) {
        try Files.replace("\(order.home)/.ssh/\(name)", with: Files.read("\(order.sshFolder)/\(name)", limit: 1 << 20))
    }

    /// Starts ssh-agent as a part of the worker's tree, and hands it the key.
    private func startAgent(_ supervisor: InitSupervisor) throws(InitFailure) {
        guard order.sshSocket.utf8.count <= SSHPreparation.longestSocketPath else {
            throw .step("\(order.sshSocket) is too long for a socket: set git.ssh_key to copy, or move the data folder")
        }
        let path = order.environment["PATH"] ?? ""
        guard let agent = Files.findProgram("ssh-agent", path: path), let add = Files.findProgram("ssh-add", path: path)
        else { throw .step("ssh-agent and ssh-add aren't on PATH (\(path))") }
        do throws(SystemError) {
            try Files.remove(order.sshSocket)
            let null = Descriptor(
                owning: try checkErrno("open /dev/null") { unsafe open("/dev/null", O_RDWR | O_CLOEXEC) })
            let command = Command(
                path: agent, arguments: ["ssh-agent", "-D", "-a", order.sshSocket], environment: order.environment)
            _ = try command.spawn(descriptors: [null.number, null.number, null.number])
        } catch { throw .step("ssh-agent could not be started: \(error)") }
        let deadline = cs_monotonic_ns() + SSHPreparation.timeout.nanoseconds
        while !Files.exists(order.sshSocket) {
            guard cs_monotonic_ns() < deadline else { throw .step("ssh-agent made no socket at \(order.sshSocket)") }
            do throws(InitSupervisor.Stop) { try supervisor.pause(for: .milliseconds(5)) } catch { throw .stop(error) }
        }
        let key = "\(order.sshFolder)/\(WorkOrder.sshKeyName)"
        let result = try InitCommand(
            path: add, arguments: ["ssh-add", "-q", key], environment: order.environment,
            timeout: SSHPreparation.timeout
        ).run(under: supervisor)
        guard result.succeeded else { throw .step("ssh-add didn't take the node's key: \(result.errors.trimmed)") }
    }
}
