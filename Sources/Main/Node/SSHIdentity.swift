import Glibc
import Supervision

/// The node's own SSH key and the hosts that it knows, in `.ssh` of the data folder.
struct SSHIdentity {
    let folder: String

    /// GitHub's host key, as GitHub publishes it (docs.github.com, "GitHub's SSH key fingerprints").
    private static let pinned =
        "github.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
    private static let longestFile = 1 << 20

    private var key: String { "\(folder)/\(WorkOrder.sshKeyName)" }

    /// Makes the key where there is none, and puts the pinned host key back where it's gone. What a worker may have
    /// planted (a link in the place of a folder or a file) is replaced, never followed.
    /// - Returns: the public half of a key that was made; nil when there was one, or ssh-keygen isn't on `path`.
    @available(*, noasync)
    func prepare(path: String) throws -> String? {
        if Files.isSymbolicLink(folder) { try Files.remove(folder) }
        try Files.makeFolders(folder)
        try pinHost()
        if Files.isSymbolicLink(key) { try Files.remove(key) }
        if Files.exists(key) {
            unsafe chmod(folder, 0o700)
            unsafe chmod(key, 0o600)  // a restored backup comes with other modes, which ssh refuses
            return nil
        }
        guard
            let command = Command(
                program: "ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", "aidevops-worker", "-f", key],
                environment: ["PATH": path])
        else { return nil }
        try Files.remove(key + ".pub")
        let result = try command.run()
        guard result.succeeded else {
            throw CommandFailure(message: "ssh-keygen could not make the node's key: \(result.errorText)")
        }
        return String(decoding: try Files.read(key + ".pub", limit: SSHIdentity.longestFile), as: UTF8.self).trimmed
    }

    private func pinHost() throws {
        let file = folder + "/known_hosts"
        var lines: [String] = []
        if Files.exists(file), !Files.isSymbolicLink(file) {
            let text = String(decoding: try Files.read(file, limit: SSHIdentity.longestFile), as: UTF8.self)
            lines = text.split(separator: "\n").map(String.init)
        }
        let kept = lines.filter { !$0.hasPrefix("github.com ") }
        let wanted = [SSHIdentity.pinned] + kept
        guard lines != wanted else { return }
        try Files.replace(file, with: Array((wanted.joined(separator: "\n") + "\n").utf8))
    }
}
