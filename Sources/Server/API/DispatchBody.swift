import FoundationEssentials
import Supervision

/// A field of a request that isn't as it must be.
struct FieldError: Error {
    let field: String?
    let message: String
}

/// The body of POST /dispatch. Unknown fields are passed over; of a repeated field, one counts.
struct DispatchBody: Decodable {
    let request: DispatchRequest

    private enum CodingKeys: String, CodingKey, CaseIterable {
        case repo, prompt, model, branch, restart, issue
        case taskID = "task_id"
        case continueTask = "continue_task"
        case callbackURL = "callback_url"
        case baseBranch = "base_branch"
    }

    /// - Throws: `FieldError`.
    static func parse(_ body: [UInt8]) throws -> DispatchRequest {
        guard String(validating: body, as: UTF8.self) != nil else {
            throw FieldError(field: nil, message: "The body isn't UTF-8.")
        }
        do {
            return try JSONDecoder().decode(DispatchBody.self, from: Data(body)).request
        } catch let error as FieldError {
            throw error
        } catch {
            throw FieldError(field: nil, message: "The body isn't valid JSON.")
        }
    }

    init(from decoder: any Decoder) throws {
        guard let values = try? decoder.container(keyedBy: CodingKeys.self) else {
            throw FieldError(field: nil, message: "The body must be a JSON object.")
        }
        func string(_ key: CodingKeys, _ problem: (String) -> String?) throws -> String? {
            guard values.contains(key), (try? values.decodeNil(forKey: key)) == false else { return nil }
            guard let value = try? values.decode(String.self, forKey: key) else {
                throw FieldError(field: key.rawValue, message: "\(key.rawValue) must be a string.")
            }
            if let problem = problem(value) {
                throw FieldError(field: key.rawValue, message: "\(key.rawValue) \(problem).")
            }
            return value
        }
        func required(_ key: CodingKeys, _ problem: (String) -> String?) throws -> String {
            guard let value = try string(key, problem) else {
                throw FieldError(field: key.rawValue, message: "\(key.rawValue) is missing.")
            }
            return value
        }
        var request = DispatchRequest(
            repo: try required(.repo, Names.problem(repo:)), prompt: try required(.prompt, Names.problem(prompt:)))
        request.id = try string(.taskID, Names.problem(taskID:))
        request.model = try string(.model, Names.problem(model:))
        request.branch = try string(.branch, Names.problem(branch:))
        request.continueTask = try string(.continueTask, Names.problem(taskID:))
        request.callbackURL = try string(.callbackURL, Names.problem(callbackURL:))
        request.baseBranch = try string(.baseBranch, Names.problem(branch:))
        if values.contains(.issue), (try? values.decodeNil(forKey: .issue)) == false {
            request.issue = try DispatchBody.issue(values.superDecoder(forKey: .issue))
        }
        if values.contains(.restart), (try? values.decodeNil(forKey: .restart)) == false {
            request.restart = try DispatchBody.restart(values.superDecoder(forKey: .restart))
        }
        self.request = request
    }

    /// What another node's pulse hands over: it becomes environment and an argument of the agent.
    private static func issue(_ decoder: any Decoder) throws -> IssueContext {
        let longest = 500
        func isPlain(_ text: String) -> Bool {
            text.utf8.count <= longest && !text.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x7f }
        }
        guard let issue = try? IssueContext(from: decoder), issue.number > 0,
            [issue.title, issue.login, issue.leaseToken, issue.device, issue.attemptID].allSatisfy(isPlain)
        else {
            throw FieldError(
                field: "issue",
                message:
                    "issue must be an object with number, title, login, lease_token, device and attempt_id, each of "
                    + "at most \(longest) bytes without control characters.")
        }
        return issue
    }

    private static func restart(_ decoder: any Decoder) throws -> RestartPolicy {
        do {
            let policy = try RestartPolicy(lenient: decoder)
            if let problem = policy.problem { throw FieldError(field: "restart", message: "restart.\(problem).") }
            return policy
        } catch let error as FieldError {
            throw error
        } catch {
            throw FieldError(
                field: "restart",
                message: "restart must be an object with policy (never, on-interrupt or on-failure), max_restarts, "
                    + "window_seconds, backoff_seconds and backoff_max_seconds, each optional.")
        }
    }
}
