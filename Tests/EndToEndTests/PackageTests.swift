import FoundationEssentials
import Supervision
import TestSupport
import Testing

@testable import Main

/// The Cloudron package against the documented rules of its manifest.
@Suite struct PackageTests {
    private static let root = Files.parent(of: Files.parent(of: Files.parent(of: #filePath) ?? "") ?? "") ?? ""

    private static func read(_ name: String) throws -> [UInt8] { try Files.read(root + "/" + name, limit: 1 << 20) }

    /// The keys of a manifest of version 2, up to box version 7.4.0.
    private static let keys: Set = [
        "manifestVersion", "id", "title", "author", "tagline", "description", "version", "changelog",
        "postInstallMessage",
        "icon", "website", "documentationUrl", "forumUrl", "contactEmail", "tags", "mediaLinks", "healthCheckPath",
        "httpPort", "memoryLimit", "minBoxVersion", "maxBoxVersion", "addons", "tcpPorts", "udpPorts",
        "upstreamVersion",
        "logPaths", "runtimeDirs", "capabilities", "multiDomain", "optionalSso", "configurePath", "targetBoxVersion",
    ]

    @Test func theManifestKeepsTheRules() throws {
        let manifest = try JSONValue(bytes: Self.read("CloudronManifest.json"))
        #expect(Set(manifest.object.keys).subtracting(Self.keys) == [])
        #expect(manifest["manifestVersion"]?.integer == 2)
        let version = try #require(manifest["version"]?.string)
        #expect(version == Version.current && version.split(separator: ".").count == 3 && !version.contains("+"))
        let parts = (manifest["id"]?.string ?? "").split(separator: ".")
        #expect(parts.count >= 2)
        for part in parts {
            #expect(
                part.first != "-"
                    && part.allSatisfy { $0.isASCII && ($0.isLowercase || $0.isNumber || $0 == "-" || $0 == "_") })
        }
        for (key, least) in [("title", 2), ("author", 2), ("tagline", 5)] {
            #expect((manifest[key]?.string ?? "").count >= least)
        }
        #expect(manifest["healthCheckPath"]?.string == "/health" && manifest["httpPort"]?.integer == 3000)
        #expect(manifest["memoryLimit"]?.integer == 2 << 30 && manifest["minBoxVersion"]?.string == "7.4.0")
        #expect(manifest["addons"]?.object.keys.sorted() == ["localstorage"])
        #expect(!(manifest["tags"]?.array ?? []).isEmpty && manifest["contactEmail"]?.string?.contains("@") == true)
        for key in ["website", "documentationUrl"] { #expect(manifest[key]?.string?.hasPrefix("https://") == true) }
        for key in ["description", "changelog", "postInstallMessage"] {
            let name = try #require(manifest[key]?.string)
            let text = try Self.read(String(name.dropFirst("file://".count)))
            #expect(name.hasPrefix("file://") && text.count >= 5)
        }
    }

    @Test func theChangelogBeginsWithThisVersion() throws {
        let lines = String(decoding: try Self.read("CHANGELOG"), as: UTF8.self).split(separator: "\n")
        #expect(lines.first == "[\(Version.current)]")
        #expect(lines.dropFirst().allSatisfy { $0.hasPrefix("* ") || $0.hasPrefix("[") })
    }

    /// The header of a PNG (ISO/IEC 15948): the signature, then IHDR with width and height.
    @Test func theIconIsAPNGOfItsSize() throws {
        let bytes = try Self.read("logo.png")
        #expect(Array(bytes.prefix(8)) == [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])
        func number(at index: Int) -> Int { bytes[index..<index + 4].reduce(0) { $0 << 8 | Int($1) } }
        #expect(number(at: 16) == 256 && number(at: 20) == 256)
    }

    @Test func theImageIsPinnedAndWritesNothingSecret() throws {
        let text = String(decoding: try Self.read("Dockerfile"), as: UTF8.self)
        #expect(text.contains("cloudron/base:5.0.0@sha256:") && text.contains("CMD [\"/app/code/start.sh\"]"))
        #expect(
            !text.contains("ENTRYPOINT") && !text.contains(":latest") && !text.contains("_TOKEN")
                && !text.contains("_KEY"))
        for line in text.split(separator: "\n") where line.hasPrefix("ARG ") && line.contains("_VERSION=") {
            #expect(line.split(separator: "=").last?.split(separator: ".").count == 3)
        }
    }
}
