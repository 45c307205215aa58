package import FoundationEssentials
import Glibc

/// A moment in the node's own time zone, as far as repos.json speaks of one.
package struct LocalTime: Sendable, Equatable {
    package var hour: Int
    /// `YYYY-MM-DD`.
    package var date: String

    package init(hour: Int, date: String) {
        self.hour = hour
        self.date = date
    }

    package init(_ moment: Date) {
        var seconds = time_t(moment.timeIntervalSince1970)
        var parts = unsafe tm()
        unsafe localtime_r(&seconds, &parts)
        hour = unsafe Int(parts.tm_hour)
        func padded(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let (year, month, day) = unsafe (parts.tm_year, parts.tm_mon, parts.tm_mday)
        date = "\(year + 1900)-\(padded(month + 1))-\(padded(day))"
    }
}

/// A repository that the pulse looks after: an eligible entry of repos.json.
package struct PulseRepository: Sendable, Equatable {
    package var slug: String
    /// `tooling`, `product` or something else.
    package var priority = "tooling"
    /// From this hour (inclusive) to that (exclusive), over midnight when the first is greater.
    package var hours: (start: Int, end: Int)?
    /// The last day, `YYYY-MM-DD`.
    package var expires: String?
    package var interval: Duration?
    package var baseBranch: String?

    package init(slug: String) { self.slug = slug }

    package static func == (left: PulseRepository, right: PulseRepository) -> Bool {
        (left.slug, left.priority, left.expires, left.interval, left.baseBranch) == (
            right.slug, right.priority, right.expires, right.interval, right.baseBranch
        ) && left.hours?.start == right.hours?.start && left.hours?.end == right.hours?.end
    }

    var isProduct: Bool { priority == "product" }
    var score: Int { priority == "tooling" ? 2000 : isProduct ? 1000 : 0 }

    /// Why it isn't looked at now; nil when it is.
    package func restPeriod(at time: LocalTime) -> String? {
        if let expires, time.date > expires { return "its pulse expired on \(expires)" }
        guard let hours, hours.start != hours.end else { return nil }
        let isWithin =
            hours.start < hours.end
            ? (hours.start..<hours.end).contains(time.hour) : time.hour >= hours.start || time.hour < hours.end
        return isWithin ? nil : "it is \(time.hour) o'clock, outside its pulse_hours \(hours.start) to \(hours.end)"
    }
}

/// What repos.json says: the repositories of the pulse, and what is wrong with other entries.
package struct PulseRepositories: Sendable, Equatable {
    package var eligible: [PulseRepository] = []
    /// A sentence for each entry that can't be used; those that aren't meant for the pulse have none.
    package var problems: [String] = []

    package static let leastInterval = 60

    /// An entry as it may come; each field alone may be broken.
    private struct Entry: Decodable {
        var slug: String?
        var path: String?
        var pulse: Bool?
        var maintenance: Bool?
        var isLocalOnly: Bool?
        var isContributed: Bool?
        var priority: String?
        var hours: Hours?
        var expires: String?
        var interval: Int?
        var baseBranch: String?
        var problem: String?

        private enum CodingKeys: String, CodingKey {
            case slug, path, pulse, maintenance, priority
            case isLocalOnly = "local_only"
            case isContributed = "contributed"
            case hours = "pulse_hours"
            case expires = "pulse_expires"
            case interval = "pulse_interval"
            case baseBranch = "pr_base_branch"
        }

        init(from decoder: any Decoder) {
            guard let values = try? decoder.container(keyedBy: CodingKeys.self) else {
                problem = "isn't an object"
                return
            }
            func read<Value: Decodable>(_ key: CodingKeys, _ type: Value.Type = Value.self) -> Value? {
                do { return try values.decodeIfPresent(type, forKey: key) } catch {
                    problem = "\(key.rawValue) isn't of the kind that it must be"
                    return nil
                }
            }
            slug = read(.slug)
            path = read(.path)
            pulse = read(.pulse)
            maintenance = read(.maintenance)
            isLocalOnly = read(.isLocalOnly)
            isContributed = read(.isContributed)
            priority = read(.priority)
            hours = read(.hours)
            expires = read(.expires)
            interval = read(.interval)
            baseBranch = read(.baseBranch)
        }
    }

    /// `{"start": s, "end": e}` or `[s, e]`.
    private struct Hours: Decodable {
        var start: Int
        var end: Int

        private enum CodingKeys: String, CodingKey { case start, end }

        init(from decoder: any Decoder) throws {
            if var list = try? decoder.unkeyedContainer() {
                start = try list.decode(Int.self)
                end = try list.decode(Int.self)
            } else {
                let values = try decoder.container(keyedBy: CodingKeys.self)
                start = try values.decode(Int.self, forKey: .start)
                end = try values.decode(Int.self, forKey: .end)
            }
        }
    }

    private struct File: Decodable {
        var initialized_repos: [Entry]
    }

    package init() {}

    /// - Throws: when the file as a whole isn't what it must be.
    package init(decoding bytes: [UInt8]) throws {
        let file = try JSONDecoder().decode(File.self, from: Data(bytes))
        for (index, entry) in file.initialized_repos.enumerated() { take(entry, index) }
    }

    private mutating func take(_ entry: Entry, _ index: Int) {
        let name = entry.slug ?? "entry \(index)"
        if let problem = entry.problem { return problems.append("repos.json: \(name): \(problem)") }
        guard entry.pulse == true, entry.maintenance != false, entry.isLocalOnly != true, entry.isContributed != true
        else { return }
        func broken(_ sentence: String) { problems.append("repos.json: \(name): \(sentence)") }
        guard let slug = entry.slug else { return broken("it has no slug") }
        guard entry.path != nil else { return broken("it has no path") }
        if let problem = Names.problem(repo: slug) { return broken("slug \(problem)") }
        if let branch = entry.baseBranch, let problem = Names.problem(branch: branch) {
            return broken("pr_base_branch \(problem)")
        }
        if let hours = entry.hours, !(0...24).contains(hours.start) || !(0...24).contains(hours.end) {
            return broken("pulse_hours must be hours from 0 to 24")
        }
        if let interval = entry.interval, interval < PulseRepositories.leastInterval {
            return broken("pulse_interval must be at least \(PulseRepositories.leastInterval) seconds")
        }
        guard !eligible.contains(where: { $0.slug.lowercased() == slug.lowercased() }) else {
            return broken("it is there twice")
        }
        var repository = PulseRepository(slug: slug)
        repository.priority = entry.priority ?? "tooling"
        repository.hours = entry.hours.map { ($0.start, $0.end) }
        repository.expires = entry.expires
        repository.interval = entry.interval.map { .seconds($0) }
        repository.baseBranch = entry.baseBranch
        eligible.append(repository)
    }
}
