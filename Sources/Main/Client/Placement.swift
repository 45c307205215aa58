import Dispatch
import Supervision
import Synchronization

/// Chooses the node for a task: this machine's first, then the others by free slots, equals in turn.
struct Placement {
    /// A node as its /status shows it.
    struct Candidate: Sendable {
        var target: Target
        var isLocal: Bool
        var available: Int
    }

    /// What was asked of a node and didn't come to be, for the notices.
    struct Notice: Equatable {
        var node: String
        var sentence: String
    }

    private(set) var notices: [Notice] = []
    private let candidates: [Candidate]

    /// Seconds for a node to say how it is.
    private static let statusTimeout = 5

    /// Asks all nodes at once how many slots they have.
    init(local: Target, remote: [Target]) {
        let targets = [local] + remote
        let answers = Mutex([Int: (available: Int?, sentence: String)]())
        DispatchQueue.concurrentPerform(iterations: targets.count) { index in
            let answer = Placement.ask(targets[index])
            answers.withLock { $0[index] = answer }
        }
        var found: [Candidate] = []
        for (index, target) in targets.enumerated() {
            let answer = answers.withLock { $0[index] }
            if let available = answer?.available {
                found.append(Candidate(target: target, isLocal: index == 0, available: available))
            } else {
                notices.append(Notice(node: target.name, sentence: answer?.sentence ?? "it wasn't asked"))
            }
        }
        candidates = Placement.ordered(found)
    }

    init(candidates: [Candidate]) { self.candidates = candidates }

    private static func ask(_ target: Target) -> (available: Int?, sentence: String) {
        var client = target.client
        client.timeout = statusTimeout
        do {
            let answer = try client.get("/status")
            guard answer.status == 200, let status = try? JSONValue(bytes: answer.body) else {
                return (nil, answer.message)
            }
            if status["status"]?.string == "draining" { return (nil, "it is stopping") }
            return (status["workers"]?["available"]?.integer ?? 0, "")
        } catch { return (nil, (error as? NodeClient.Unreachable)?.message ?? "\(error)") }
    }

    /// The local one first where it has room; a full one is asked last, since slots come free.
    static func ordered(_ candidates: [Candidate]) -> [Candidate] {
        candidates.shuffled().sorted { left, right in
            func rank(_ candidate: Candidate) -> (Int, Int, Int) {
                (candidate.available > 0 ? 0 : 1, candidate.isLocal ? 0 : 1, -candidate.available)
            }
            return rank(left) < rank(right)
        }
    }

    /// Where the task went, and the node's answer.
    struct Placed {
        var target: Target
        var answer: JSONValue
    }

    /// Offers the task to one node after the other until one has taken it.
    ///
    /// The task's id is what makes this safe: where it isn't certain whether a node took it, that node is asked, and while
    /// it can't say, no other gets the task.
    mutating func place(_ body: JSONValue, id: String) throws -> Placed {
        for candidate in candidates {
            if let answer = try offer(body, id: id, to: candidate.target) {
                return Placed(target: candidate.target, answer: answer)
            }
        }
        let reasons = notices.map { "\($0.node): \($0.sentence)" }.joined(separator: "; ")
        throw CommandFailure(message: "no node took the task: \(reasons)")
    }

    /// - Returns: the node's answer when it took the task; nil when another may get it.
    mutating func offer(_ body: JSONValue, id: String, to target: Target) throws -> JSONValue? {
        let answer: NodeClient.Answer
        do {
            answer = try target.client.request("POST", "/dispatch", json: Array(body.text.utf8))
        } catch let error as NodeClient.Unreachable {
            if error.isCertain {
                notices.append(Notice(node: target.name, sentence: error.message))
                return nil
            }
            return try resolve(id, at: target, error.message)
        }
        switch answer.status {
        case 202: return try answer.json(202)
        case 401, 403, 413, 429, 500...599:
            // A proxy before the node may say so while the node took it; the node's own answers are JSON.
            let isTheNodes = (try? JSONValue(bytes: answer.body))?["error"] != nil
            if answer.status >= 500, !isTheNodes { return try resolve(id, at: target, answer.message) }
            notices.append(Notice(node: target.name, sentence: answer.message))
            return nil
        default: throw CommandFailure(message: "\(target.name): \(answer.message)")
        }
    }

    private static let questions = 5

    /// Asks a node that may have taken the task whether it did.
    private mutating func resolve(_ id: String, at target: Target, _ message: String) throws -> JSONValue? {
        for _ in 0..<Placement.questions {
            guard let answer = try? target.client.get("/workers/\(id)") else { continue }
            if answer.status == 200 { return try answer.json() }
            if answer.status == 404 {
                notices.append(Notice(node: target.name, sentence: message))
                return nil
            }
        }
        throw CommandFailure(
            message: "\(target.name) may have taken the task \(id) or not, and can't be asked now (\(message)); it was "
                + "given to no other node. Look later with: aidevops-worker ps --host \(target.name)")
    }
}
