import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;

/**
 * Sends a GET request, a POST request with content, and GET requests until there were as many as asked for, all with one
 * client, and prints the version and the content of each response that differs from the one before.
 *
 * Usage: java Get.java URL REQUESTS
 */
class Get {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(args[0]));
        int requests = Integer.parseInt(args[1]);
        String before = "";
        for (int i = 0; i < requests; i++) {
            HttpRequest next = i == 1 ? request.POST(BodyPublishers.ofString("some content")).build() : request.GET().build();
            HttpResponse<String> response = client.send(next, BodyHandlers.ofString());
            String line = response.version() + " " + response.body();
            if (!line.equals(before)) {
                System.out.println(line);
            }
            before = line;
        }
    }
}
